//! TFRecord files: for each record its length (u64, little-endian), a masked CRC32C of those 8 bytes, the bytes, a
//! masked CRC32C of the bytes.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::error::DataError;

/// Maximum length of a record; a greater length means that the file is of another kind.
const LONGEST: u64 = 1 << 30;

const CUT: &str = "the file ends inside it; it is cut short, fetch it again";

/// TensorFlow's mask, without which a checksum over data that contains checksums would be weak.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// The records of one file, in order.
pub struct Records {
    file: BufReader<File>,
    path: PathBuf,
    count: usize,
}

impl Records {
    /// Opens a file.
    ///
    /// # Errors
    /// A file that is missing.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let file = files::open_regular(path).map_err(|e| DataError::read(path, e))?;
        Ok(Self {
            file: BufReader::with_capacity(1 << 20, file),
            path: path.to_path_buf(),
            count: 0,
        })
    }

    fn error(&self, message: &str) -> DataError {
        DataError::read(&self.path, format!("record {}: {message}", self.count))
    }

    /// Reads the next record into `bytes` and verifies its checksums; false at the end of the file.
    ///
    /// # Errors
    /// A wrong checksum, a truncated file.
    pub fn next_into(&mut self, bytes: &mut Vec<u8>) -> Result<bool, DataError> {
        let mut head = [0; 12];
        match self.file.read(&mut head[..1]) {
            Ok(0) => return Ok(false),
            Ok(_) => self.exactly(&mut head[1..])?,
            Err(error) => return Err(DataError::read(&self.path, error)),
        }
        let (length, checksum) = head.split_at(8);
        if masked(crc32c::crc32c(length)) != little(checksum) {
            return Err(self.error("the checksum of its length is wrong; the file is damaged or no TFRecord file"));
        }
        let length = u64::from_le_bytes(length.try_into().expect("8 bytes"));
        if length > LONGEST {
            return Err(self.error(&format!("{length} bytes is too long for an image")));
        }
        // The buffer grows with the data that is read: a large length alone allocates nothing.
        bytes.clear();
        let read = (&mut self.file).take(length).read_to_end(bytes);
        if read.map_err(|error| DataError::read(&self.path, error))? as u64 != length {
            return Err(self.error(CUT));
        }
        let mut checksum = [0; 4];
        self.exactly(&mut checksum)?;
        if masked(crc32c::crc32c(bytes)) != little(&checksum) {
            return Err(self.error("the checksum of its bytes is wrong; the file is damaged, fetch it again"));
        }
        self.count += 1;
        Ok(true)
    }

    fn exactly(&mut self, bytes: &mut [u8]) -> Result<(), DataError> {
        self.file.read_exact(bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => self.error(CUT),
            _ => DataError::read(&self.path, error),
        })
    }
}

fn little(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("4 bytes"))
}

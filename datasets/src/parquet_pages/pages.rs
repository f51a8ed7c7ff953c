//! The pages of one column of a group of rows.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::ChunkReader;
use parquet::schema::types::ColumnDescPtr;

use super::codec;
use super::decoded::{self, Levels};
use super::header::{self, Header, Kind};
use super::limit::Limit;

/// Reads pages one after the other.
pub(super) struct Pages {
    file: Arc<File>,
    column: ColumnDescPtr,
    codec: Compression,
    /// Where the next page begins.
    at: u64,
    /// Bytes of the column from there on.
    left: u64,
    /// Rows of the group.
    rows: u64,
    /// Values so far, nulls among them.
    values: u64,
    /// Lengths of the texts in the dictionary.
    dictionary: Vec<u32>,
    limit: Arc<Limit>,
}

impl Pages {
    /// The pages of the column that `chunk` describes, in a group of that many rows.
    ///
    /// # Errors
    /// A column that lies outside any file.
    pub(super) fn new(
        file: Arc<File>,
        chunk: &ColumnChunkMetaData,
        rows: u64,
        limit: Arc<Limit>,
    ) -> std::result::Result<Self, String> {
        let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
        let [at, left] = [start, chunk.compressed_size()]
            .map(|number| u64::try_from(number).map_err(|_| "a column lies before its start"));
        Ok(Self {
            file,
            column: chunk.column_descr_ptr(),
            codec: chunk.compression(),
            at: at?,
            left: left?,
            rows,
            values: 0,
            dictionary: Vec::new(),
            limit,
        })
    }

    fn name(&self) -> String {
        self.column.path().string()
    }

    fn named(&self, message: String) -> ParquetError {
        ParquetError::General(format!("column '{}': {message}", self.name()))
    }

    /// The header of the next page with values or a dictionary.
    fn header(&mut self) -> std::result::Result<Option<Header>, String> {
        while self.left > 0 {
            let source = self.file.get_read(self.at).map_err(|e| e.to_string())?;
            let header = header::read(source.take(self.left))?;
            if header.length + header.packed > self.left {
                return Err("a page goes on after the end of its column".into());
            }
            match header.kind {
                Kind::Other => self.pass(&header),
                _ => return Ok(Some(header)),
            }
        }
        Ok(None)
    }

    fn pass(&mut self, header: &Header) {
        let whole = header.length + header.packed;
        self.at += whole;
        self.left -= whole;
    }

    fn page(&mut self) -> std::result::Result<Option<Page>, String> {
        let Some(header) = self.header()? else {
            // The crate would go on with nulls.
            return match self.values < self.rows {
                true => Err(format!("it ends after {} of {} rows", self.values, self.rows)),
                false => Ok(None),
            };
        };
        let body = self.at + header.length;
        self.pass(&header);
        let name = self.name();
        let is_packed =
            self.codec != Compression::UNCOMPRESSED && !matches!(header.kind, Kind::DataV2 { is_packed: false, .. });
        let size = match is_packed {
            true => header.size,
            false => header.packed as usize,
        };
        let share = self.limit.page(&name, size as u64)?;
        let packed = self.file.get_bytes(body, header.packed as usize);
        let packed = packed.map_err(|e| e.to_string())?;
        let plain = match header.kind {
            Kind::DataV2 {
                definition_bytes,
                repetition_bytes,
                ..
            } => u64::from(definition_bytes) + u64::from(repetition_bytes),
            _ => 0,
        };
        let buf = share.hold(match is_packed {
            true => self.unpacked(&packed, plain, size)?,
            false => packed,
        });
        Ok(Some(match header.kind {
            Kind::Dictionary {
                values,
                encoding,
                is_sorted,
            } => {
                self.dictionary = decoded::dictionary(&self.column, &buf, values)?;
                self.limit.decode(&name, values.into(), 0)?;
                Page::DictionaryPage {
                    buf,
                    num_values: values,
                    encoding,
                    is_sorted,
                }
            }
            Kind::Data {
                values,
                encoding,
                definition,
                repetition,
            } => {
                self.count(&name, &buf, values, encoding, Levels::First([repetition, definition]))?;
                Page::DataPage {
                    buf,
                    num_values: values,
                    encoding,
                    def_level_encoding: definition,
                    rep_level_encoding: repetition,
                    statistics: None,
                }
            }
            Kind::DataV2 {
                values,
                nulls,
                rows,
                encoding,
                definition_bytes,
                repetition_bytes,
                is_packed,
            } => {
                self.count(&name, &buf, values, encoding, Levels::Bytes(plain))?;
                Page::DataPageV2 {
                    buf,
                    num_values: values,
                    encoding,
                    num_nulls: nulls,
                    num_rows: rows,
                    def_levels_byte_len: definition_bytes,
                    rep_levels_byte_len: repetition_bytes,
                    is_compressed: is_packed,
                    statistics: None,
                }
            }
            Kind::Other => return Err("a page is of no known kind".into()),
        }))
    }

    /// A page whose first `plain` bytes are not packed.
    fn unpacked(&self, packed: &[u8], plain: u64, size: usize) -> std::result::Result<Bytes, String> {
        let split = usize::try_from(plain)
            .ok()
            .and_then(|plain| packed.split_at_checked(plain));
        let (levels, values) = split.ok_or("the levels of a page are longer than the page")?;
        let room = size
            .checked_sub(levels.len())
            .ok_or("a page announces less than its levels take")?;
        // Nothing is packed where there are only nulls.
        let mut values = match room {
            0 => Vec::new(),
            room => codec::unpacked(self.codec, values, room).map_err(|e| format!("a page cannot be unpacked, {e}"))?,
        };
        if levels.is_empty() {
            return Ok(values.into());
        }
        let mut whole = levels.to_vec();
        whole.append(&mut values);
        Ok(whole.into())
    }

    /// Counts the values of a data page before they are decoded.
    fn count(
        &mut self,
        name: &str,
        page: &[u8],
        values: u32,
        encoding: Encoding,
        levels: Levels,
    ) -> std::result::Result<(), String> {
        self.limit.decode(name, values.into(), 0)?;
        let text = decoded::text(&self.column, page, values, encoding, levels, &self.dictionary)?;
        self.limit.decode(name, 0, text)?;
        self.values = self.values.saturating_add(values.into());
        Ok(())
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.page().map_err(|message| self.named(message))
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        let header = self.header().map_err(|message| self.named(message))?;
        Ok(header.map(|header| {
            let (num_rows, num_levels) = match header.kind {
                Kind::Data { values, .. } => (None, Some(values as usize)),
                Kind::DataV2 { values, rows, .. } => (Some(rows as usize), Some(values as usize)),
                Kind::Dictionary { .. } | Kind::Other => (None, None),
            };
            PageMetadata {
                num_rows,
                num_levels,
                is_dict: matches!(header.kind, Kind::Dictionary { .. }),
            }
        }))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        if let Some(header) = self.header().map_err(|message| self.named(message))? {
            self.pass(&header);
        }
        Ok(())
    }
}

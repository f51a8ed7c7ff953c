//! How much memory a parquet file may take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::packed;

/// Bytes that the values of any file may take once they are decoded; a larger file may take as many times its size as
/// its pages may.
const ALWAYS_DECODED: u64 = 1 << 30;

/// What a value takes beside its text.
const PER_VALUE: u64 = 64;

/// The limits of one pass over a file.
pub(super) struct Limit {
    /// Size of the file.
    length: u64,
    /// Most bytes of unpacked pages at a time.
    pages: u64,
    /// Most bytes of all values together.
    decoded: u64,
    held: AtomicU64,
    taken: AtomicU64,
    refusal: OnceLock<String>,
}

impl Limit {
    /// For a file of `length` bytes.
    pub(super) fn of(length: u64) -> Self {
        let pages = packed::most(length);
        Self::new(length, pages, pages.max(ALWAYS_DECODED))
    }

    pub(super) fn new(length: u64, pages: u64, decoded: u64) -> Self {
        Self {
            length,
            pages,
            decoded,
            held: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            refusal: OnceLock::new(),
        }
    }

    /// Why reading was refused.
    pub(super) fn refusal(&self) -> Option<&str> {
        self.refusal.get().map(String::as_str)
    }

    fn refuse<T>(&self, message: String) -> Result<T, String> {
        Err(self.refusal.get_or_init(|| message).clone())
    }

    /// Refuses more rows than any file of that size holds.
    pub(super) fn check_rows(&self, rows: u64) -> Result<(), String> {
        match rows.saturating_mul(PER_VALUE) > self.decoded {
            false => Ok(()),
            true => self.refuse(format!(
                "it announces {rows} rows, which its {} bytes cannot hold; split it into several files, or fetch it again",
                self.length
            )),
        }
    }

    /// Room for a page of `column` that takes `size` bytes unpacked, until the returned share is dropped.
    pub(super) fn page(self: &Arc<Self>, column: &str, size: u64) -> Result<Share, String> {
        let held = self.held.fetch_add(size, Ordering::Relaxed).saturating_add(size);
        let share = Share {
            limit: self.clone(),
            size,
        };
        match held > self.pages {
            false => Ok(share),
            true => self.refuse(format!(
                "a page of column '{column}' announces {size} bytes unpacked; the pages of a file of {} bytes may take {} \
                 at a time; write it anew with fewer rows to a group, in Python: \
                 pyarrow.parquet.write_table(TABLE, FILE, row_group_size=1000)",
                self.length, self.pages
            )),
        }
    }

    /// Counts `values` values of `column` that are to be decoded, with `text` bytes of text in all.
    pub(super) fn decode(&self, column: &str, values: u64, text: u64) -> Result<(), String> {
        let more = values.saturating_mul(PER_VALUE).saturating_add(text);
        let taken = self.taken.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        match taken > self.decoded {
            false => Ok(()),
            true => self.refuse(format!(
                "column '{column}' brings its values to more than {} bytes, which is the limit for a file of {} bytes; \
                 keep only the columns that are needed, or split it into several files",
                self.decoded, self.length
            )),
        }
    }
}

/// A part of what pages may take, given back when it is dropped.
pub(super) struct Share {
    limit: Arc<Limit>,
    size: u64,
}

impl Share {
    /// `bytes`, which give the share back when nothing refers to them any more.
    pub(super) fn hold(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { bytes, _share: self })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.limit.held.fetch_sub(self.size, Ordering::Relaxed);
    }
}

struct Held {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_count_while_they_are_held_and_values_for_good() {
        let limit = Arc::new(Limit::new(10, 100, 1000));
        let first = limit.page("a", 60).unwrap().hold(Bytes::from_static(b"x"));
        let part = first.slice(..1);
        drop(first);
        assert!(limit.refusal().is_none());
        drop(part);
        let second = limit.page("a", 100).unwrap();
        let refused = limit.page("b", 1).err().unwrap();
        assert!(
            refused.contains("column 'b'") && refused.contains("may take 100"),
            "{refused}"
        );
        assert_eq!(limit.refusal(), Some(refused.as_str()));
        drop(second);
        assert!(limit.page("b", 100).is_ok());
        limit.decode("a", 10, 300).unwrap();
        assert!(limit.decode("a", 0, 61).is_err());
        assert!(Limit::of(10).check_rows(1 << 24).is_ok() && Limit::of(10).check_rows(u64::MAX).is_err());
    }
}

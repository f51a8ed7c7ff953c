//! The pages of parquet files, unpacked within a limit on memory. The parquet crate itself believes the sizes in a page's
//! header, and unpacks gzip and Brotli without any limit.

mod codec;
mod decoded;
mod footer;
mod header;
mod limit;
mod pages;
mod thrift;

use std::fs::File;
use std::sync::Arc;

use parquet::bloom_filter::Sbbf;
use parquet::column::page::PageReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::reader::{FileReader, RowGroupReader};
use parquet::record::reader::RowIter;
use parquet::schema::types::Type;

pub(crate) use codec::is_built_in;
pub(crate) use footer::check as check_footer;
use limit::Limit;
use pages::Pages;

/// A file whose pages are read within a limit. One is for one pass over the rows.
pub(crate) struct PagedFile<'a> {
    file: &'a Arc<File>,
    metadata: &'a ParquetMetaData,
    limit: Arc<Limit>,
}

impl<'a> PagedFile<'a> {
    /// The pages of a file of `length` bytes.
    ///
    /// # Errors
    /// More rows than fit into the limit.
    pub(crate) fn new(
        file: &'a Arc<File>,
        length: u64,
        metadata: &'a ParquetMetaData,
    ) -> std::result::Result<Self, String> {
        let limit = Arc::new(Limit::of(length));
        let groups = metadata.row_groups().iter();
        let rows = groups.fold(0, |rows: u64, group| rows.saturating_add(group.num_rows() as u64));
        limit.check_rows(rows)?;
        Ok(Self { file, metadata, limit })
    }

    /// Why reading was refused, if it is because of the limit.
    pub(crate) fn refusal(&self) -> Option<&str> {
        self.limit.refusal()
    }
}

impl FileReader for PagedFile<'_> {
    fn metadata(&self) -> &ParquetMetaData {
        self.metadata
    }

    fn num_row_groups(&self) -> usize {
        self.metadata.num_row_groups()
    }

    fn get_row_group(&self, index: usize) -> Result<Box<dyn RowGroupReader + '_>> {
        Ok(Box::new(PagedGroup {
            file: self.file,
            group: self.metadata.row_group(index),
            limit: &self.limit,
        }))
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>> {
        RowIter::from_file(projection, self)
    }
}

/// A group of rows of such a file.
struct PagedGroup<'a> {
    file: &'a Arc<File>,
    group: &'a RowGroupMetaData,
    limit: &'a Arc<Limit>,
}

impl RowGroupReader for PagedGroup<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.group
    }

    fn num_columns(&self) -> usize {
        self.group.num_columns()
    }

    fn get_column_page_reader(&self, index: usize) -> Result<Box<dyn PageReader>> {
        let rows = u64::try_from(self.group.num_rows())?;
        let pages = Pages::new(self.file.clone(), self.group.column(index), rows, self.limit.clone());
        Ok(Box::new(pages.map_err(ParquetError::General)?))
    }

    fn get_column_bloom_filter(&self, _index: usize) -> Option<&Sbbf> {
        None
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

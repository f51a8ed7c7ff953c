//! Rows of parquet files, as used by Hugging Face's datasets, in any of the usual compressions.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::{Map, Number, Value};

use crate::guard::guarded;
use crate::parquet_pages::{PagedFile, check_footer, is_built_in};

/// An open file.
pub(crate) struct ParquetFile {
    file: Arc<File>,
    length: u64,
    metadata: ParquetMetaData,
}

impl ParquetFile {
    /// Reads the metadata at the end of the file.
    ///
    /// # Errors
    /// A file that cannot be read, is not a parquet file or uses a compression that is not built in.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let file = files::open_regular(path).map_err(|e| e.to_string())?;
        let length = file.metadata().map_err(|e| e.to_string())?.len();
        check_footer(&file, length)?;
        let metadata = guarded(|| {
            let read = ParquetMetaDataReader::new().parse_and_finish(&file);
            read.map_err(|e| e.to_string())
        })?;
        let columns = || metadata.row_groups().iter().flat_map(|group| group.columns());
        if columns().any(|column| !lies_within(column, length)) {
            return Err("it is damaged: a column lies outside the file; fetch it again".into());
        }
        match columns()
            .map(|column| column.compression())
            .find(|codec| !is_built_in(*codec))
        {
            None => Ok(Self {
                file: Arc::new(file),
                length,
                metadata,
            }),
            Some(codec) => Err(format!(
                "it is compressed with {codec}, which is not built in; write it anew with zstd, in Python: \
                 pyarrow.parquet.write_table(pyarrow.parquet.read_table(FILE), FILE, compression='zstd')"
            )),
        }
    }

    /// Names of the columns.
    pub(crate) fn columns(&self) -> Vec<&str> {
        self.schema().get_fields().iter().map(|field| field.name()).collect()
    }

    /// The file's metadata entry `key`.
    fn note(&self, key: &str) -> Option<&str> {
        let notes = self.metadata.file_metadata().key_value_metadata()?;
        notes.iter().find(|note| note.key == key)?.value.as_deref()
    }

    /// What Hugging Face's datasets note about each column.
    pub(crate) fn features(&self) -> Map<String, Value> {
        let note = self.note("huggingface").map(serde_json::from_str::<Value>);
        let mut note = note.and_then(Result::ok).unwrap_or_default();
        match note.pointer_mut("/info/features").map(Value::take) {
            Some(Value::Object(features)) => features,
            _ => Map::new(),
        }
    }

    /// The class names that the note gives the labels in `column`; empty if it gives none.
    pub(crate) fn class_names(&self, column: &str) -> Vec<String> {
        let features = self.features();
        let names = features.get(column).and_then(|feature| feature["names"].as_array());
        let names = names.into_iter().flatten().filter_map(Value::as_str);
        names.map(String::from).collect()
    }

    /// Calls `each` with every row, in file order; rows have the columns in `wanted`, or all columns if it is empty. Of a
    /// file with none of them, the first column is read, so that its rows are known.
    ///
    /// # Errors
    /// Damaged rows, rows that take too much memory, and errors of `each`.
    pub(crate) fn rows<E: From<String>>(
        &self,
        wanted: &[&str],
        mut each: impl FnMut(Row) -> Result<(), E>,
    ) -> Result<(), E> {
        let pages = PagedFile::new(&self.file, self.length, &self.metadata)?;
        let failed = |e: String| {
            E::from(match pages.refusal() {
                Some(refusal) => refusal.to_string(),
                None => format!("its rows are damaged ({e})"),
            })
        };
        let part = (!wanted.is_empty()).then(|| self.projection(wanted)).transpose()?;
        let mut rows = guarded(|| RowIter::from_file(part, &pages).map_err(|e| e.to_string())).map_err(failed)?;
        while let Some(row) = guarded(|| rows.next().transpose().map_err(|e| e.to_string())).map_err(failed)? {
            each(row)?;
        }
        Ok(())
    }

    fn projection(&self, wanted: &[&str]) -> Result<Type, String> {
        let schema = self.schema();
        let all = schema.get_fields();
        let mut fields: Vec<_> = all
            .iter()
            .filter(|field| wanted.contains(&field.name()))
            .cloned()
            .collect();
        if fields.is_empty() {
            fields.extend(all.first().cloned());
        }
        Type::group_type_builder(schema.name())
            .with_fields(fields)
            .build()
            .map_err(|e| e.to_string())
    }

    fn schema(&self) -> &Type {
        self.metadata.file_metadata().schema()
    }
}

/// True if the column's pages are in a file of that length.
fn lies_within(column: &ColumnChunkMetaData, length: u64) -> bool {
    let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
    let [start, size] = [start, column.compressed_size()].map(|number| u64::try_from(number).unwrap_or(u64::MAX));
    start.saturating_add(size) <= length
}

/// A row as JSON. Bytes become text if they are valid text, because some writers do not mark text columns, and null
/// otherwise.
pub(crate) fn object(row: Row) -> Map<String, Value> {
    let columns = row.into_columns().into_iter();
    columns.map(|(name, field)| (name, json(field))).collect()
}

fn json(field: Field) -> Value {
    let decimal = |value: f64| Number::from_f64(value).map_or(Value::Null, Value::Number);
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => value.into(),
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) => value.into(),
        Field::Long(value) => value.into(),
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.into(),
        Field::Float16(value) => decimal(value.into()),
        Field::Float(value) => decimal(value.into()),
        Field::Double(value) => decimal(value),
        Field::Str(text) => text.into(),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => text.into(),
            Err(_) => Value::Null,
        },
        Field::Group(row) => Value::Object(object(row)),
        Field::ListInternal(list) => list.elements().iter().cloned().map(json).collect(),
        Field::MapInternal(map) => {
            let entries = map.entries().iter();
            let entry = |(key, value): &(Field, Field)| (text(json(key.clone())), json(value.clone()));
            Value::Object(entries.map(entry).collect())
        }
        // Dates and decimals as the crate formats them.
        other => other.to_string().into(),
    }
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

//! Where conversations are imported from: JSONL, plain or compressed, and Parquet.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use serde_json::Value;

use super::lines::{Line, next_line};
use super::{DatasetError, Day, LINE_BYTES_MAX};

/// One record as it comes.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A line of JSON.
    Json(Vec<u8>),
    /// A row of a table, as JSON would show it.
    Row(Value),
    /// A line longer than [`LINE_BYTES_MAX`].
    TooLong,
    /// A line without text.
    Blank,
}

/// Formats that are told apart by the file's first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Jsonl,
    Gzip,
    Zstd,
    Parquet,
}

impl Format {
    fn of(beginning: &[u8]) -> Self {
        match beginning {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => Self::Zstd,
            b"PAR1" => Self::Parquet,
            _ => Self::Jsonl,
        }
    }
}

enum Records {
    Lines {
        reader: Box<dyn BufRead + Send>,
        buffer: Vec<u8>,
    },
    Rows(Box<RowIter<'static>>),
}

/// Records of one source, one after another, in bounded memory.
pub struct Source {
    path: PathBuf,
    records: Records,
    done: Arc<AtomicU64>,
    total: u64,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({})", self.path.display())
    }
}

/// Counts what is read from the file, for the progress.
struct Counting<R> {
    inner: R,
    done: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let read = u64::try_from(n).unwrap_or(u64::MAX);
        self.done.fetch_add(read, Ordering::Relaxed);
        Ok(n)
    }
}

impl Source {
    /// Opens a file; its first bytes say what it is, its name does not matter.
    ///
    /// # Errors
    /// [`DatasetError::Io`]; [`DatasetError::Corrupt`] for a Parquet file that cannot be read.
    pub fn open(path: &Path) -> Result<Self, DatasetError> {
        let io = || DatasetError::io(path);
        let mut file = File::open(path).map_err(io())?;
        let bytes = file.metadata().map_err(io())?.len();
        let mut beginning = Vec::new();
        (&file).take(4).read_to_end(&mut beginning).map_err(io())?;
        file.seek(SeekFrom::Start(0)).map_err(io())?;
        let done = Arc::new(AtomicU64::new(0));
        let counting = Counting {
            inner: file,
            done: Arc::clone(&done),
        };
        let reader: Box<dyn Read + Send> = match Format::of(&beginning) {
            Format::Parquet => return Self::parquet(path, done),
            Format::Jsonl => Box::new(counting),
            Format::Gzip => Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(counting))),
            Format::Zstd => Box::new(zstd::Decoder::new(counting).map_err(io())?),
        };
        let reader = BufReader::with_capacity(256 * 1024, reader);
        Ok(Self {
            done,
            total: bytes,
            ..Self::lines(path, reader)
        })
    }

    /// Lines of JSON out of memory or a pipe; `name` stands for them in errors.
    pub fn lines(name: &Path, reader: impl BufRead + Send + 'static) -> Self {
        Self {
            path: name.to_owned(),
            records: Records::Lines {
                reader: Box::new(reader),
                buffer: Vec::new(),
            },
            done: Arc::default(),
            total: 0,
        }
    }

    fn parquet(path: &Path, done: Arc<AtomicU64>) -> Result<Self, DatasetError> {
        let corrupt = |e: parquet::errors::ParquetError| {
            DatasetError::corrupt(path.display().to_string(), e.to_string())
        };
        let file = File::open(path).map_err(DatasetError::io(path))?;
        let reader = SerializedFileReader::new(file).map_err(corrupt)?;
        let rows = reader.metadata().file_metadata().num_rows();
        Ok(Self {
            path: path.to_owned(),
            records: Records::Rows(Box::new(RowIter::from_file_into(Box::new(reader)))),
            done,
            total: u64::try_from(rows).unwrap_or(0),
        })
    }

    /// How far the reading is, and how far it goes: bytes of the file, or rows of a table.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total)
    }

    /// The file, or the name that was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// [`DatasetError::Io`] when the file cannot be read or decompressed;
    /// [`DatasetError::Corrupt`] when a table cannot be decoded.
    pub fn next_record(&mut self) -> Result<Option<Record>, DatasetError> {
        match &mut self.records {
            Records::Lines { reader, buffer } => {
                let line = next_line(reader, buffer, LINE_BYTES_MAX);
                Ok(match line.map_err(DatasetError::io(&self.path))? {
                    None => None,
                    Some(Line::TooLong) => Some(Record::TooLong),
                    Some(_) if buffer.trim_ascii().is_empty() => Some(Record::Blank),
                    Some(_) => Some(Record::Json(std::mem::take(buffer))),
                })
            }
            Records::Rows(rows) => {
                let Some(row) = rows.next() else {
                    return Ok(None);
                };
                self.done.fetch_add(1, Ordering::Relaxed);
                let row = row.map_err(|e| {
                    let what = self.path.display().to_string();
                    DatasetError::corrupt(what, e.to_string())
                })?;
                Ok(Some(Record::Row(row_value(&row))))
            }
        }
    }
}

fn row_value(row: &Row) -> Value {
    let fields = row.get_column_iter();
    Value::Object(
        fields
            .map(|(name, field)| (name.clone(), field_value(name, field)))
            .collect(),
    )
}

/// A field as a line of JSON would hold it. Numbers that are times become days; what a
/// conversation has no use for becomes null.
fn field_value(name: &str, field: &Field) -> Value {
    let day = |ms: i64| {
        let ms = u64::try_from(ms).unwrap_or(0);
        Value::String(Day::from_unix_ms(ms).to_string())
    };
    match field {
        // A list or structure that a writer stored as text, as some do.
        Field::Str(text) if name == "messages" => serde_json::from_str(text).unwrap_or(Value::Null),
        Field::Str(text) => Value::String(text.clone()),
        // Writers that set no logical type for their text.
        Field::Bytes(bytes) => match bytes.as_utf8() {
            Ok(text) => Value::String(text.to_owned()),
            Err(_) => Value::Null,
        },
        Field::Date(days) => day(i64::from(*days) * 86_400_000),
        Field::TimestampMillis(ms) => day(*ms),
        Field::TimestampMicros(us) => day(us / 1000),
        // Nanoseconds come as plain numbers: after 2001 they have 19 digits.
        Field::Long(ns) if *ns > 900_000_000_000_000_000 => day(ns / 1_000_000),
        Field::Group(row) => row_value(row),
        Field::ListInternal(list) => {
            let values = list.elements().iter();
            Value::Array(values.map(|field| field_value("", field)).collect())
        }
        _ => Value::Null,
    }
}

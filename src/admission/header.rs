//! Safetensors headers, stricter than the format's library: see the limits below.

use super::{StreamError, reject};
use crate::incentive::{Rejection, RejectionCode};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use std::collections::HashSet;
use std::fmt;
use std::io::Read;

/// Largest header. The library accepts 100 MB, also of spaces.
const HEADER_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Most tensors of a file.
const TENSORS_MAX: usize = 20_000;
/// Longest tensor name.
const NAME_BYTES_MAX: usize = 200;
/// Most dimensions of a tensor.
const RANK_MAX: usize = 4;
/// Largest dimension.
const DIMENSION_MAX: u64 = 1 << 31;
/// Largest `__metadata__`, keys and values together.
const METADATA_BYTES_MAX: usize = 64 * 1024;

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// Brain float, 2 bytes.
    Bf16,
    /// Half precision, 2 bytes.
    F16,
    /// Single precision, 4 bytes.
    F32,
}

impl Dtype {
    /// The name in the header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bf16 => "BF16",
            Self::F16 => "F16",
            Self::F32 => "F32",
        }
    }

    /// Bytes of one element.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Bf16, Self::F16, Self::F32];
        all.into_iter().find(|d| d.as_str() == name)
    }
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Letters, digits, `_` and `.`, at most 200.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// One to four dimensions, none of them 0.
    pub shape: Vec<u64>,
}

impl TensorInfo {
    /// Number of elements; cannot overflow, for header checks bound it by the file's size.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Bytes of the data.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.elements() * self.dtype.bytes()
    }
}

/// The tensors of a file in the order of their data, which they fill without gap, overlap or rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// In the order of their data.
    pub tensors: Vec<TensorInfo>,
    /// Where the data begins in the file; a multiple of 8.
    pub data_start: u64,
}

impl Header {
    /// Reads the header of a file of `file_size` bytes and leaves `reader` at the data. Takes no more
    /// memory than the header's limit, whatever the file claims.
    ///
    /// # Errors
    /// [`StreamError`]: a header that breaks a rule, or a failed read.
    pub fn read(reader: &mut impl Read, file_size: u64) -> Result<Self, StreamError> {
        if file_size < 8 {
            return Err(bad(format!(
                "The file has {file_size} bytes, too few for a header."
            ))
            .into());
        }
        let mut length = [0; 8];
        reader.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        if length > HEADER_BYTES_MAX || length > file_size - 8 {
            return Err(bad(format!("The header claims {length} bytes.")).into());
        }
        if !length.is_multiple_of(8) {
            return Err(bad("The data does not begin at a multiple of 8.").into());
        }
        let mut text = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        reader.read_exact(&mut text)?;
        let data_start = length + 8;
        let tensors = parse(&text, file_size - data_start)?;
        Ok(Self {
            tensors,
            data_start,
        })
    }

    /// Number of elements of all tensors.
    #[must_use]
    pub fn param_count(&self) -> u64 {
        self.tensors.iter().map(TensorInfo::elements).sum()
    }
}

fn bad(detail: impl fmt::Display) -> Rejection {
    reject(RejectionCode::Format, detail)
}

/// Checks that the tensors fill `data_bytes` exactly.
fn parse(text: &[u8], data_bytes: u64) -> Result<Vec<TensorInfo>, Rejection> {
    if text.first() != Some(&b'{') {
        return Err(bad("The header does not begin with {."));
    }
    let Entries(mut entries) =
        serde_json::from_slice(text).map_err(|e| bad(format!("The header is malformed: {e}.")))?;
    entries.sort_unstable_by_key(|(_, raw)| raw.data_offsets);
    let mut end_of_last = 0;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, raw) in entries {
        let [begin, end] = raw.data_offsets;
        if begin != end_of_last {
            return Err(bad(format!(
                "Tensor {name:?} leaves a gap or overlaps another."
            )));
        }
        let tensor = checked(name, &raw)?;
        if end.checked_sub(begin) != Some(tensor.bytes()) {
            let name = tensor.name;
            return Err(bad(format!(
                "Tensor {name:?} has another size than its shape."
            )));
        }
        end_of_last = end;
        tensors.push(tensor);
    }
    if tensors.is_empty() || end_of_last != data_bytes {
        return Err(bad("The tensors do not fill the file to its end."));
    }
    Ok(tensors)
}

fn checked(name: String, raw: &RawTensor) -> Result<TensorInfo, Rejection> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) {
        let shown: String = name.chars().take(64).collect();
        return Err(bad(format!("{shown:?} is no plain tensor name.")));
    }
    let Some(dtype) = Dtype::from_name(&raw.dtype) else {
        let shown: String = raw.dtype.chars().take(16).collect();
        let detail = format!("Tensor {name:?} has type {shown:?}; BF16, F16 and F32 are accepted.");
        return Err(bad(detail));
    };
    let ranked = (1..=RANK_MAX).contains(&raw.shape.len());
    let sized = raw.shape.iter().all(|d| (1..=DIMENSION_MAX).contains(d));
    let bytes = raw
        .shape
        .iter()
        .try_fold(dtype.bytes(), |product, d| product.checked_mul(*d));
    if !ranked || !sized || bytes.is_none() {
        let detail = format!("Tensor {name:?} has a shape outside 1 to 4 dimensions of 1 to 2^31.");
        return Err(bad(detail));
    }
    Ok(TensorInfo {
        name,
        dtype,
        shape: raw.shape.clone(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The header's object with unique keys, bounded while it is read.
struct Entries(Vec<(String, RawTensor)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut seen = HashSet::new();
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom("a key occurs twice"));
            }
            if key == "__metadata__" {
                check_metadata(&map.next_value::<Metadata>()?).map_err(A::Error::custom)?;
            } else {
                entries.push((key, map.next_value()?));
            }
            if entries.len() > TENSORS_MAX {
                return Err(A::Error::custom("more than 20000 tensors"));
            }
        }
        Ok(Entries(entries))
    }
}

type Metadata = std::collections::BTreeMap<String, String>;

fn check_metadata(metadata: &Metadata) -> Result<(), &'static str> {
    let bytes: usize = metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
    if bytes > METADATA_BYTES_MAX {
        return Err("the metadata exceeds 64 KiB");
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! One pass over a file's data: a digest per tensor, and no value that is no number.

use super::header::{Dtype, Header, TensorInfo};
use super::{StreamError, reject};
use crate::incentive::RejectionCode;
use assay_protocol::TensorEntry;
use sha2::{Digest, Sha256};
use std::io::{self, Read, Seek, SeekFrom};

/// Bytes read at once; a multiple of every element size.
const CHUNK: usize = 1 << 20;

/// Reads the data of every tensor of `header`.
pub(super) fn scan(
    reader: &mut (impl Read + Seek),
    header: &Header,
) -> Result<Vec<TensorEntry>, StreamError> {
    reader.seek(SeekFrom::Start(header.data_start))?;
    let mut chunk = vec![0; CHUNK];
    let mut entries = Vec::with_capacity(header.tensors.len());
    for tensor in &header.tensors {
        entries.push(scan_tensor(reader, tensor, &mut chunk)?);
    }
    // The size was verified by the download: anything more means that the file changed since.
    if reader.read(&mut chunk[..1])? > 0 {
        return Err(io::Error::other("the file grew since it was verified").into());
    }
    Ok(entries)
}

fn scan_tensor(
    reader: &mut impl Read,
    tensor: &TensorInfo,
    chunk: &mut [u8],
) -> Result<TensorEntry, StreamError> {
    let mut hash = Sha256::new();
    let mut left = tensor.bytes();
    while left > 0 {
        let size = usize::try_from(left).map_or(chunk.len(), |left| left.min(chunk.len()));
        let part = &mut chunk[..size];
        reader.read_exact(part)?;
        hash.update(&*part);
        if has_non_finite(part, tensor.dtype) {
            let detail = format!("Tensor {:?} holds a NaN or infinite value.", tensor.name);
            return Err(reject(RejectionCode::NonFinite, detail).into());
        }
        left = left.saturating_sub(u64::try_from(size).unwrap_or(u64::MAX));
    }
    Ok(TensorEntry {
        name: tensor.name.clone(),
        dtype: tensor.dtype.as_str().to_owned(),
        shape: tensor.shape.clone(),
        sha256: hash.finalize().into(),
    })
}

/// Whether any element's exponent bits are all ones.
fn has_non_finite(bytes: &[u8], dtype: Dtype) -> bool {
    match dtype {
        Dtype::Bf16 => any_u16(bytes, 0x7f80),
        Dtype::F16 => any_u16(bytes, 0x7c00),
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().fold(false, |found, b| {
            found | (u32::from_le_bytes(*b) & 0x7f80_0000 == 0x7f80_0000)
        }),
    }
}

/// Without early exit, so that the compiler can look at many elements at once.
fn any_u16(bytes: &[u8], exponent: u16) -> bool {
    bytes.as_chunks::<2>().0.iter().fold(false, |found, b| {
        found | (u16::from_le_bytes(*b) & exponent == exponent)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_f32(value: f32) -> bool {
        has_non_finite(&value.to_le_bytes(), Dtype::F32)
    }

    #[test]
    fn only_nan_and_infinity_are_found() {
        for value in [0.0, -0.0, 1.5, f32::MAX, f32::MIN_POSITIVE / 2.0, -3e38] {
            assert!(!check_f32(value), "{value}");
        }
        for value in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(check_f32(value), "{value}");
        }
    }

    #[test]
    fn every_half_precision_pattern_is_classified_as_the_library_does() {
        for bits in 0..=u16::MAX {
            let bytes = bits.to_le_bytes();
            let bf16 = half::bf16::from_bits(bits).is_finite();
            assert_eq!(has_non_finite(&bytes, Dtype::Bf16), !bf16, "{bits:04x}");
            let f16 = half::f16::from_bits(bits).is_finite();
            assert_eq!(has_non_finite(&bytes, Dtype::F16), !f16, "{bits:04x}");
        }
    }
}

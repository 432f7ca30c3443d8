//! One pass over the data of all files: a digest per tensor, and no value that is no number. Every
//! tensor is a unit of work of its own, so that one large file keeps all cores busy as well.

use super::header::{Dtype, Header, TensorInfo};
use super::sketch::rounded;
use super::{AdmissionError, StreamError, open, reject, unreadable};
use crate::incentive::RejectionCode;
use assay_protocol::TensorEntry;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Bytes read at once: a multiple of every element size, and small enough that the second look at
/// them finds them in the core's own cache.
const CHUNK: usize = 128 * 1024;

/// One tensor, and where it lies.
struct Unit<'a> {
    file: &'a str,
    shard: &'a File,
    tensor: &'a TensorInfo,
    offset: u64,
}

type Scanned = (TensorEntry, [u8; 16]);
type Found = Result<Scanned, AdmissionError>;

/// Reads the data of every tensor, once, on so many threads: its digest, and that of its values rounded
/// to bf16. Of several violations the first in the
/// order of `headers` is returned, whatever the threads do.
pub(super) fn scan(
    folder: &Path,
    headers: &[(String, Header)],
    cores: NonZeroUsize,
) -> Result<Vec<Scanned>, AdmissionError> {
    let shards = open_all(folder, headers)?;
    let units = units(headers, &shards);
    let (next, broken) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || run(&units, &next, &broken);
    let threads = cores.get().min(units.len());
    let mut found: Vec<(usize, Found)> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut found = work();
        for other in others {
            match other.join() {
                Ok(more) => found.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        found
    });
    found.sort_unstable_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, found)| found).collect()
}

/// Opens the files. Their size was verified by the download: another one means that a file changed
/// since.
fn open_all(folder: &Path, headers: &[(String, Header)]) -> Result<Vec<File>, AdmissionError> {
    let mut shards = Vec::with_capacity(headers.len());
    for (name, header) in headers {
        let shard = open(folder, name)?;
        let size = shard.metadata().map_err(|e| unreadable(name, e))?.len();
        let data: u64 = header.tensors.iter().map(TensorInfo::bytes).sum();
        if size != header.data_start + data {
            let changed = io::Error::other("its size changed since it was verified");
            return Err(unreadable(name, changed));
        }
        shards.push(shard);
    }
    Ok(shards)
}

fn units<'a>(headers: &'a [(String, Header)], shards: &'a [File]) -> Vec<Unit<'a>> {
    let mut units = Vec::new();
    for ((file, header), shard) in headers.iter().zip(shards) {
        let mut offset = header.data_start;
        for tensor in &header.tensors {
            units.push(Unit {
                file,
                shard,
                tensor,
                offset,
            });
            offset += tensor.bytes();
        }
    }
    units
}

/// Takes units in order until none is left or one was broken. What was taken before is finished, so
/// that the first violation is always among what was found.
fn run(units: &[Unit<'_>], next: &AtomicUsize, broken: &AtomicBool) -> Vec<(usize, Found)> {
    let mut chunk = vec![0; CHUNK];
    let mut found = Vec::new();
    while !broken.load(Ordering::Relaxed) {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(unit) = units.get(index) else { break };
        let entry = scan_tensor(unit, &mut chunk).map_err(|e| e.of_file(unit.file));
        broken.fetch_or(entry.is_err(), Ordering::Relaxed);
        found.push((index, entry));
    }
    found
}

fn scan_tensor(unit: &Unit<'_>, chunk: &mut [u8]) -> Result<Scanned, StreamError> {
    let tensor = unit.tensor;
    let mut hash = Sha256::new();
    // What is stored as bf16 needs no second digest.
    let mut values = (tensor.dtype != Dtype::Bf16).then(|| (Sha256::new(), Vec::new()));
    let (mut offset, end) = (unit.offset, unit.offset + tensor.bytes());
    while offset < end {
        let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let part = &mut chunk[..left.min(CHUNK)];
        unit.shard.read_exact_at(part, offset)?;
        hash.update(&*part);
        if let Some((hash, buffer)) = &mut values {
            rounded(part, tensor.dtype, buffer);
            hash.update(&*buffer);
        }
        if has_non_finite(part, tensor.dtype) {
            let detail = format!("Tensor {:?} holds a NaN or infinite value.", tensor.name);
            return Err(reject(RejectionCode::NonFinite, detail).into());
        }
        offset += u64::try_from(part.len()).unwrap_or(u64::MAX);
    }
    let sha256: [u8; 32] = hash.finalize().into();
    let of_values = values.map_or(sha256, |(hash, _)| hash.finalize().into());
    let mut short = [0; 16];
    short.copy_from_slice(&of_values[..16]);
    let entry = TensorEntry {
        name: tensor.name.clone(),
        dtype: tensor.dtype.as_str().to_owned(),
        shape: tensor.shape.clone(),
        sha256,
    };
    Ok((entry, short))
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

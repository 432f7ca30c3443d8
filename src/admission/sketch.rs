//! Fingerprints of weights that outlive renaming, other files, other precision and a little noise.

use super::header::{Dtype, Header, TensorInfo};
use super::{AdmissionError, Verified, open, read_headers, unreadable};
use crate::incentive::copies::Sketch;
use crate::incentive::eligibility::ModelFiles;
use half::{bf16, f16};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Runs of neighbouring values that are read of each matrix, and their length.
const RUNS: u64 = 8;
const RUN: u64 = 16;

/// The sketch of a verified model, and the digest of its shape: only models of one shape can be
/// compared. `seed` is the node's secret, so that nobody knows which values are looked at; the places
/// are the same for every model of a shape. A few reads of each matrix.
///
/// # Errors
/// [`AdmissionError`] when a file that was verified cannot be read.
pub fn sketch(
    folder: &Path,
    files: &ModelFiles,
    verified: &Verified,
    seed: &[u8; 32],
) -> Result<(String, Sketch), AdmissionError> {
    let mut samples = BTreeMap::new();
    let mut shapes = BTreeMap::new();
    for (name, header) in read_headers(folder, files)? {
        let shard = open(folder, &name)?;
        let read = sample_all(&shard, &header, seed, &mut samples);
        read.map_err(|source| unreadable(&name, source))?;
        let all = header.tensors.into_iter();
        shapes.extend(all.map(|tensor| (tensor.name, tensor.shape)));
    }
    let mut shape = Sha256::new();
    for (name, dimensions) in shapes {
        shape.update(format!("{name} {dimensions:?}\n"));
    }
    let mut values = verified.values.clone();
    values.sort_unstable();
    let shape = format!("sha256:{}", hex::encode(shape.finalize()));
    Ok((shape, Sketch { values, samples }))
}

fn sample_all(
    shard: &File,
    header: &Header,
    seed: &[u8; 32],
    samples: &mut BTreeMap<String, Vec<f32>>,
) -> io::Result<()> {
    let mut offset = header.data_start;
    for tensor in &header.tensors {
        if tensor.shape.len() == 2 {
            samples.insert(tensor.name.clone(), sample(shard, tensor, offset, seed)?);
        }
        offset += tensor.bytes();
    }
    Ok(())
}

fn sample(shard: &File, tensor: &TensorInfo, offset: u64, seed: &[u8; 32]) -> io::Result<Vec<f32>> {
    let length = tensor.elements().min(RUN);
    let places = tensor.elements() - length + 1;
    let width = tensor.dtype.bytes();
    let mut values = Vec::new();
    for run in 0..RUNS {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(seed)
            .chain_update(&tensor.name)
            .chain_update(run.to_le_bytes())
            .finalize()
            .into();
        let mut number = [0; 8];
        number.copy_from_slice(&digest[..8]);
        let first = u64::from_le_bytes(number) % places;
        let mut bytes = vec![0; usize::try_from(length * width).unwrap_or(0)];
        shard.read_exact_at(&mut bytes, offset + first * width)?;
        values.extend(decode(&bytes, tensor.dtype));
    }
    Ok(values)
}

fn decode(bytes: &[u8], dtype: Dtype) -> Vec<f32> {
    let halves = || bytes.as_chunks::<2>().0.iter().copied();
    match dtype {
        Dtype::Bf16 => halves().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        Dtype::F16 => halves().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::F32 => {
            let words = bytes.as_chunks::<4>().0.iter();
            words.map(|b| f32::from_le_bytes(*b)).collect()
        }
    }
}

/// The bytes of the same values rounded to bf16, the nearest with ties to even; `into` is reused.
pub(super) fn rounded(bytes: &[u8], dtype: Dtype, into: &mut Vec<u8>) {
    into.clear();
    let values = decode(bytes, dtype).into_iter();
    into.extend(values.flat_map(|value| bf16::from_f32(value).to_le_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_the_same_in_every_precision_that_holds_it() {
        let values = [0.0f32, -1.5, 0.25, 100.0, -0.007_812_5];
        let bf: Vec<u8> = values
            .iter()
            .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
            .collect();
        let half: Vec<u8> = values
            .iter()
            .flat_map(|v| f16::from_f32(*v).to_le_bytes())
            .collect();
        let full: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        for (bytes, dtype) in [(&bf, Dtype::Bf16), (&half, Dtype::F16), (&full, Dtype::F32)] {
            let mut out = vec![9];
            rounded(bytes, dtype, &mut out);
            assert_eq!(out, bf, "{dtype:?}");
        }
    }
}

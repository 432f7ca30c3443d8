//! Evidence that what was loaded is what the node verified.

use crate::failure::{Failure, OrFailure};
use crate::model::Model;
use crate::weights::{Located, decode};
use assay_protocol::{
    Canary, CanaryProof, ModelFile, ResultCode, canary_positions, canary_tensors,
};
use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// Bytes hashed between two signs of life.
const BLOCK: u64 = 8 << 20;

/// What the file system says about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat([i128; 5]);

/// Device, inode, size and modification time of every listed file.
pub(crate) fn stat_all(folder: &Path, files: &[ModelFile]) -> Result<Vec<Stat>, Failure> {
    let stat = |file: &ModelFile| {
        let meta = std::fs::metadata(folder.join(&file.path)).map_err(|err| unread(file, &err))?;
        Ok(Stat([
            meta.dev().into(),
            meta.ino().into(),
            meta.size().into(),
            meta.mtime().into(),
            meta.mtime_nsec().into(),
        ]))
    };
    files.iter().map(stat).collect()
}

/// Reads a whole file of the model, which must be what the job says.
pub(crate) fn read_verified(
    folder: &Path,
    file: &ModelFile,
    mut beat: impl FnMut() -> Result<(), Failure>,
) -> Result<Vec<u8>, Failure> {
    let mut opened = File::open(folder.join(&file.path)).map_err(|err| unread(file, &err))?;
    let size = opened.metadata().map_err(|err| unread(file, &err))?.len();
    if size != file.size {
        let message = format!("{} has {size} bytes, the job says {}", file.path, file.size);
        return Err(Failure::new(ResultCode::Mount, message));
    }
    let (mut bytes, mut hasher) = (Vec::new(), Sha256::new());
    loop {
        let start = bytes.len();
        let block = opened.by_ref().take(BLOCK).read_to_end(&mut bytes);
        if block.map_err(|err| unread(file, &err))? == 0 {
            break;
        }
        hasher.update(&bytes[start..]);
        beat()?;
    }
    let digest = hex::encode(hasher.finalize());
    if digest != file.sha256 {
        let message = format!(
            "{} has digest {digest}, the job says {}",
            file.path, file.sha256
        );
        return Err(Failure::new(ResultCode::Mount, message));
    }
    Ok(bytes)
}

/// A missing file is a wrong mount, because the node has verified it; anything else is I/O.
fn unread(file: &ModelFile, err: &std::io::Error) -> Failure {
    let code = match err.kind() {
        std::io::ErrorKind::NotFound => ResultCode::Mount,
        _ => ResultCode::Io,
    };
    Failure::new(
        code,
        format_args!("reading {} of the model: {err}", file.path),
    )
}

/// Reads the drawn values once more from the files and from the loaded model.
///
/// # Errors
/// `I_MOUNT` when they differ.
pub(crate) fn canary(
    model: &Model,
    located: &HashMap<String, Located>,
    nonce: &[u8; 32],
    wanted: &Canary,
) -> Result<Vec<CanaryProof>, Failure> {
    let layers = u32::try_from(model.config().layers).unwrap_or(u32::MAX);
    let mut proofs = Vec::new();
    for name in canary_tensors(layers, wanted.tensors) {
        let (Some(tensor), Some(place)) = (model.weight(&name), located.get(&name)) else {
            return Err(Failure::new(
                ResultCode::EngineLoad,
                format!("{name} was not loaded"),
            ));
        };
        let elements = u64::try_from(tensor.elem_count()).unwrap_or(0);
        let positions = canary_positions(nonce, &name, elements, wanted.values);
        let proof = CanaryProof {
            sha256_file: digest(&from_file(place, &positions).or_failure(ResultCode::Io, &name)?),
            sha256_loaded: digest(
                &from_model(tensor, positions).or_failure(ResultCode::EngineLoad, &name)?,
            ),
            tensor: name,
        };
        if proof.sha256_file != proof.sha256_loaded {
            let message = format!("the loaded {} differs from the file", proof.tensor);
            return Err(Failure::new(ResultCode::Mount, message));
        }
        proofs.push(proof);
    }
    Ok(proofs)
}

fn from_file(place: &Located, positions: &[u64]) -> std::io::Result<Vec<f32>> {
    let file = File::open(&place.path)?;
    let width = place.dtype.size();
    let mut bytes = vec![0; positions.len() * width];
    for (value, position) in bytes.chunks_mut(width).zip(positions) {
        let stride = u64::try_from(width).unwrap_or(u64::MAX);
        file.read_exact_at(value, place.offset + position * stride)?;
    }
    Ok(decode(place.dtype, &bytes))
}

fn from_model(tensor: &Tensor, positions: Vec<u64>) -> candle_core::Result<Vec<f32>> {
    let count = positions.len();
    let positions = positions.into_iter().filter_map(|p| i64::try_from(p).ok());
    let positions = Tensor::from_iter(positions, &Device::Cpu)?.reshape(count)?;
    tensor.flatten_all()?.index_select(&positions, 0)?.to_vec1()
}

fn digest(values: &[f32]) -> String {
    let mut hasher = Sha256::new();
    for value in values {
        hasher.update(value.to_le_bytes());
    }
    hex::encode(hasher.finalize())
}

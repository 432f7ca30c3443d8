//! From safetensors bytes to f32 tensors, with the digest of each.

use crate::config::ModelConfig;
use crate::failure::{Failure, OrFailure};
use assay_protocol::{ResultCode, TensorEntry, tensor_digest};
use candle_core::{Device, Tensor};
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::PathBuf;

/// A stored element type that this scorer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    Bf16,
    F16,
    F32,
}

impl Stored {
    /// Bytes of one value.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// Where a tensor's bytes are.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    pub(crate) path: PathBuf,
    /// First byte of the tensor in the file.
    pub(crate) offset: u64,
    pub(crate) dtype: Stored,
}

/// Weights as they come out of the files, one file after the other.
#[derive(Debug, Default)]
pub(crate) struct Weights {
    pub(crate) tensors: HashMap<String, Tensor>,
    pub(crate) located: HashMap<String, Located>,
    entries: Vec<TensorEntry>,
}

impl Weights {
    /// Adds all tensors of one file.
    ///
    /// # Errors
    /// `E_FORMAT` for a malformed file, another element type or a name that was there before,
    /// `E_SHAPE` for a tensor that `shapes` does not have so, `E_NONFINITE` for a NaN or infinity.
    pub(crate) fn add(
        &mut self,
        path: PathBuf,
        bytes: &[u8],
        shapes: &HashMap<String, Vec<usize>>,
    ) -> Result<(), Failure> {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let file = SafeTensors::deserialize(bytes).or_failure(ResultCode::Format, name)?;
        for (name, view) in file.tensors() {
            let dtype = match view.dtype() {
                Dtype::BF16 => Stored::Bf16,
                Dtype::F16 => Stored::F16,
                Dtype::F32 => Stored::F32,
                other => {
                    let message = format!("{name} has element type {other:?}");
                    return Err(Failure::new(ResultCode::Format, message));
                }
            };
            check_shape(&name, view.shape(), shapes)?;
            let values = decode(dtype, view.data());
            if let Some(bad) = values.iter().position(|v| !v.is_finite()) {
                let message = format!("{name} is {} at position {bad}", values[bad]);
                return Err(Failure::new(ResultCode::NonFinite, message));
            }
            self.entries.push(TensorEntry {
                name: name.clone(),
                dtype: view.dtype().to_string(),
                shape: view
                    .shape()
                    .iter()
                    .filter_map(|d| u64::try_from(*d).ok())
                    .collect(),
                sha256: Sha256::digest(view.data()).into(),
            });
            let offset = view.data().as_ptr().addr() - bytes.as_ptr().addr();
            let place = Located {
                path: path.clone(),
                offset: u64::try_from(offset).unwrap_or(u64::MAX),
                dtype,
            };
            let tensor = Tensor::from_vec(values, view.shape(), &Device::Cpu)
                .or_failure(ResultCode::EngineLoad, &name)?;
            self.located.insert(name.clone(), place);
            if self.tensors.insert(name.clone(), tensor).is_some() {
                let message = format!("{name} is in two files");
                return Err(Failure::new(ResultCode::Format, message));
            }
        }
        Ok(())
    }

    /// The digest over everything that was added.
    pub(crate) fn digest(&mut self) -> String {
        tensor_digest(&mut self.entries)
    }

    /// Refuses a set with a tensor missing.
    pub(crate) fn complete(&self, config: &ModelConfig) -> Result<(), Failure> {
        match config
            .tensors()
            .into_iter()
            .find(|(name, _)| !self.tensors.contains_key(name))
        {
            None => Ok(()),
            Some((name, _)) => Err(Failure::new(
                ResultCode::Shape,
                format!("tensor {name} is missing"),
            )),
        }
    }
}

/// The shapes that may occur: those of the model, and a head that tied models may store as well.
pub(crate) fn allowed_shapes(config: &ModelConfig) -> HashMap<String, Vec<usize>> {
    let mut shapes: HashMap<_, _> = config.tensors().into_iter().collect();
    let head = vec![config.vocab_size, config.hidden_size];
    shapes.insert("lm_head.weight".to_owned(), head);
    shapes
}

fn check_shape(
    name: &str,
    found: &[usize],
    shapes: &HashMap<String, Vec<usize>>,
) -> Result<(), Failure> {
    let message = match shapes.get(name) {
        Some(shape) if shape == found => return Ok(()),
        Some(shape) => format!("{name} has shape {found:?}, config.json demands {shape:?}"),
        None => format!("tensor {name} does not belong to the model"),
    };
    Err(Failure::new(ResultCode::Shape, message))
}

/// Stored bytes as f32; exact for all three types.
pub(crate) fn decode(dtype: Stored, bytes: &[u8]) -> Vec<f32> {
    let halves = || bytes.as_chunks::<2>().0.iter();
    match dtype {
        Stored::Bf16 => halves()
            .map(|b| half::bf16::from_le_bytes(*b).to_f32())
            .collect(),
        Stored::F16 => halves()
            .map(|b| half::f16::from_le_bytes(*b).to_f32())
            .collect(),
        Stored::F32 => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect(),
    }
}

//! One digest for a set of tensors, whatever files hold them.

use sha2::{Digest, Sha256};

/// One tensor as it enters the digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// Name in the safetensors header; free of NUL, which the header check ensures.
    pub name: String,
    /// Element type as the header writes it, such as `BF16`.
    pub dtype: String,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// SHA-256 of the tensor's bytes.
    pub sha256: [u8; 32],
}

/// `sha256:` + hex SHA-256 over the entries sorted by name, each written as
/// `name\0dtype\0d0,d1,…\0` followed by the 32 bytes of its digest. Independent of sharding, tensor
/// order and metadata; leaves `tensors` sorted by name.
#[must_use]
pub fn tensor_digest(tensors: &mut [TensorEntry]) -> String {
    tensors.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let mut hash = Sha256::new();
    for tensor in tensors.iter() {
        let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
        hash.update(tensor.name.as_bytes());
        hash.update(b"\0");
        hash.update(tensor.dtype.as_bytes());
        hash.update(b"\0");
        hash.update(shape.join(",").as_bytes());
        hash.update(b"\0");
        hash.update(tensor.sha256);
    }
    format!("sha256:{}", hex::encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, dtype: &str, shape: &[u64], fill: u8) -> TensorEntry {
        TensorEntry {
            name: name.to_owned(),
            dtype: dtype.to_owned(),
            shape: shape.to_vec(),
            sha256: [fill; 32],
        }
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let mut bytes = b"a\0BF16\x002,3\0".to_vec();
        bytes.extend_from_slice(&[7; 32]);
        bytes.extend_from_slice(b"b\0F32\x004\0");
        bytes.extend_from_slice(&[9; 32]);
        let want = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        let mut tensors = [entry("b", "F32", &[4], 9), entry("a", "BF16", &[2, 3], 7)];
        assert_eq!(tensor_digest(&mut tensors), want);
        assert_eq!(tensors[0].name, "a");
    }

    #[test]
    fn every_part_counts() {
        let of = |e: TensorEntry| tensor_digest(&mut [e]);
        let base = of(entry("a", "BF16", &[2, 3], 7));
        assert_ne!(base, of(entry("b", "BF16", &[2, 3], 7)));
        assert_ne!(base, of(entry("a", "F16", &[2, 3], 7)));
        assert_ne!(base, of(entry("a", "BF16", &[3, 2], 7)));
        assert_ne!(base, of(entry("a", "BF16", &[23], 7)));
        assert_ne!(base, of(entry("a", "BF16", &[2, 3], 8)));
    }
}

//! Which loaded values are read back: drawn from the nonce, the same for every scorer.

use sha2::{Digest, Sha256};

const DOMAIN: &[u8] = b"assay-canary/1\0";

/// Names of the tensors that are read back from a model with `layers` decoder layers: the
/// embedding, the final norm, then `o_proj` and `down_proj` by turns, spread evenly over the
/// depth. At most `count` names, each once; inference engines leave all of them unfused.
#[must_use]
pub fn canary_tensors(layers: u32, count: u32) -> Vec<String> {
    let mut names = vec![
        "model.embed_tokens.weight".to_owned(),
        "model.norm.weight".to_owned(),
    ];
    let inner = u64::from(count.saturating_sub(2)).min(2 * u64::from(layers));
    for i in 0..inner {
        let layer = i * u64::from(layers) / inner;
        let part = if i % 2 == 0 {
            "self_attn.o_proj"
        } else {
            "mlp.down_proj"
        };
        let name = format!("model.layers.{layer}.{part}.weight");
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    names
}

/// `values` positions in a tensor of `elements` values, repetitions possible: numbers `4b..4b+4`
/// are the four little-endian u64 of
/// SHA-256(`assay-canary/1` `\0` nonce `\0` tensor `\0` b as little-endian u64), modulo
/// `elements`. Empty when the tensor is.
#[must_use]
pub fn canary_positions(nonce: &[u8; 32], tensor: &str, elements: u64, values: u32) -> Vec<u64> {
    if elements == 0 {
        return Vec::new();
    }
    let wanted = usize::try_from(values).unwrap_or(usize::MAX);
    (0u64..)
        .flat_map(|block| {
            let digest: [u8; 32] = Sha256::new()
                .chain_update(DOMAIN)
                .chain_update(nonce)
                .chain_update([0])
                .chain_update(tensor.as_bytes())
                .chain_update([0])
                .chain_update(block.to_le_bytes())
                .finalize()
                .into();
            let mut words = [0; 4];
            for (word, bytes) in words.iter_mut().zip(digest.as_chunks::<8>().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            words
        })
        .map(|number| number % elements)
        .take(wanted)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_follow_the_documented_bytes() {
        let mut plain = b"assay-canary/1\0".to_vec();
        plain.extend([7; 32]);
        plain.extend(b"\0model.norm.weight\0");
        plain.extend(1u64.to_le_bytes());
        let block: [u8; 32] = Sha256::digest(plain).into();
        let fifth = u64::from_le_bytes(block[..8].try_into().unwrap()) % 1000;
        let drawn = canary_positions(&[7; 32], "model.norm.weight", 1000, 5);
        assert_eq!(drawn.len(), 5);
        assert_eq!(drawn[4], fifth);
    }

    #[test]
    fn positions_stay_inside_and_depend_on_nonce_and_name() {
        let drawn = canary_positions(&[1; 32], "a", 10, 1024);
        assert_eq!(drawn.len(), 1024);
        assert!(drawn.iter().all(|p| *p < 10));
        assert_ne!(drawn, canary_positions(&[2; 32], "a", 10, 1024));
        assert_ne!(drawn, canary_positions(&[1; 32], "b", 10, 1024));
        assert!(canary_positions(&[1; 32], "a", 0, 8).is_empty());
    }

    #[test]
    fn tensors_spread_over_the_depth() {
        let layer = |n, part| format!("model.layers.{n}.{part}.weight");
        assert_eq!(
            canary_tensors(24, 8)[2..],
            [
                layer(0, "self_attn.o_proj"),
                layer(4, "mlp.down_proj"),
                layer(8, "self_attn.o_proj"),
                layer(12, "mlp.down_proj"),
                layer(16, "self_attn.o_proj"),
                layer(20, "mlp.down_proj"),
            ]
        );
        assert_eq!(canary_tensors(3, 8).len(), 8);
        assert_eq!(canary_tensors(1, 8).len(), 4);
        assert_eq!(canary_tensors(1, 1), ["model.embed_tokens.weight"]);
        assert_eq!(canary_tensors(u32::MAX, 4).len(), 4);
    }
}

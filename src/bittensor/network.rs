//! Networks by the hash of their first block.

use super::BlockHash;

/// Genesis hashes of the public networks.
const KNOWN: [(&str, &str); 2] = [
    (
        "finney",
        "0x2f0555cc76fc2840a25a6ea3b9637146806f1f44b090c175ffde2a7e5ab36c03",
    ),
    (
        "test",
        "0x8f9cf856bf558a14440e75569c9e58594757048d7b3a84b5d25f6bd978263105",
    ),
];

/// The field's name of the network that begins with this block; `None` for a local one.
#[must_use]
pub fn network_name(genesis: &BlockHash) -> Option<&'static str> {
    let text = genesis.to_string();
    KNOWN
        .iter()
        .find(|(_, hash)| *hash == text)
        .map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_networks_have_names_and_others_none() {
        for (name, hash) in KNOWN {
            let genesis: BlockHash = hash.parse().expect("a constant");
            assert_eq!(network_name(&genesis), Some(name));
        }
        assert_eq!(network_name(&BlockHash([0x45; 32])), None);
    }
}

//! What the metagraphs say about keys: class and group. Replaced whole, never changed in place.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bittensor::{Coldkey, Hotkey, Metagraph};
use crate::dataset_api::client::{Class, NO_GROUP};

/// One neuron as the snapshot file keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotNeuron {
    /// Its hotkey.
    pub hotkey: Hotkey,
    /// Its owner.
    pub coldkey: Coldkey,
    /// `ValidatorPermit`.
    pub validator_permit: bool,
    /// `total_stake`, 10⁻⁹ alpha.
    pub total_stake: u64,
}

/// One subnet's neurons at one block: read from chain, kept on disk for a start without chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The subnet.
    pub netuid: u16,
    /// Height of the block.
    pub block: u64,
    /// When it was read, unix milliseconds.
    pub read_ms: u64,
    /// All neurons.
    pub neurons: Vec<SnapshotNeuron>,
}

/// Largest snapshot file.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

impl Snapshot {
    /// The part of a metagraph that matters here.
    #[must_use]
    pub fn of(metagraph: &Metagraph, block: u64, read_ms: u64) -> Self {
        let neurons = metagraph.neurons().iter();
        Self {
            netuid: metagraph.netuid().0,
            block,
            read_ms,
            neurons: neurons
                .map(|n| SnapshotNeuron {
                    hotkey: n.hotkey,
                    coldkey: n.coldkey,
                    validator_permit: n.validator_permit,
                    total_stake: n.total_stake,
                })
                .collect(),
        }
    }

    /// Reads a snapshot file; `None` when there is none.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn load(path: &Path) -> Result<Option<Self>, String> {
        let size = match std::fs::metadata(path) {
            Ok(meta) => meta.len(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e.to_string()),
        };
        if size > FILE_BYTES_MAX {
            return Err("it is larger than 16 MiB".to_owned());
        }
        let text = std::fs::read(path).map_err(|e| e.to_string())?;
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|e| e.to_string())
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// What the disk says.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        let draft = path.with_extension("draft");
        std::fs::write(&draft, serde_json::to_vec(self)?)?;
        std::fs::rename(&draft, path)
    }
}

/// What makes a permit holder count as a validator.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// Hotkeys of the operator's scoring workers.
    pub scorers: Vec<Hotkey>,
    /// Least `total_stake` of a validator, 10⁻⁹ alpha.
    pub validator_stake_min: u64,
}

/// A registered key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its class.
    pub class: Class,
    /// Its group.
    pub group: &'static str,
    /// Its owner, when the metagraph tells.
    pub coldkey: Option<Coldkey>,
}

/// All keys that any group's metagraph knows.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    hotkeys: HashMap<Hotkey, Member>,
    coldkeys: HashMap<Coldkey, &'static str>,
}

impl Registry {
    /// Joins the metagraphs, each with the name of its group. A key in several groups belongs to
    /// the one where its class is highest, then to the first.
    #[must_use]
    pub fn new(groups: &[(&'static str, Snapshot)], standing: &Standing) -> Self {
        let mut registry = Self::default();
        for (group, snapshot) in groups {
            for neuron in &snapshot.neurons {
                let stake = neuron.total_stake >= standing.validator_stake_min;
                let class = if neuron.validator_permit && stake {
                    Class::Validator
                } else {
                    Class::Miner
                };
                let member = Member {
                    class,
                    group,
                    coldkey: Some(neuron.coldkey),
                };
                let known = registry.hotkeys.get(&neuron.hotkey);
                if known.is_none_or(|known| class < known.class) {
                    registry.hotkeys.insert(neuron.hotkey, member);
                }
                let owner = registry.coldkeys.entry(neuron.coldkey);
                owner.or_insert_with(|| group);
            }
        }
        for scorer in &standing.scorers {
            let none = Member {
                class: Class::Scorer,
                group: NO_GROUP,
                coldkey: None,
            };
            registry.hotkeys.entry(*scorer).or_insert(none).class = Class::Scorer;
        }
        registry
    }

    /// What is known about a hotkey.
    #[must_use]
    pub fn hotkey(&self, hotkey: &Hotkey) -> Option<&Member> {
        self.hotkeys.get(hotkey)
    }

    /// The group of a coldkey that owns a registered hotkey.
    #[must_use]
    pub fn coldkey(&self, coldkey: &Coldkey) -> Option<&'static str> {
        self.coldkeys.get(coldkey).copied()
    }

    /// Registered hotkeys.
    #[must_use]
    pub fn count(&self) -> usize {
        self.hotkeys.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neuron(n: u8, permit: bool, stake: u64) -> SnapshotNeuron {
        SnapshotNeuron {
            hotkey: Hotkey([n; 32]),
            coldkey: Coldkey([100 + n; 32]),
            validator_permit: permit,
            total_stake: stake,
        }
    }

    fn snapshot(netuid: u16, neurons: Vec<SnapshotNeuron>) -> Snapshot {
        Snapshot {
            netuid,
            block: 5,
            read_ms: 7,
            neurons,
        }
    }

    #[test]
    fn permit_and_stake_make_a_validator_and_the_highest_class_wins() {
        let eleven = snapshot(
            11,
            vec![
                neuron(1, true, 50),
                neuron(2, true, 49),
                neuron(3, false, 99),
            ],
        );
        let other = snapshot(58, vec![neuron(2, true, 50), neuron(4, false, 0)]);
        let standing = Standing {
            scorers: vec![Hotkey([9; 32]), Hotkey([3; 32])],
            validator_stake_min: 50,
        };
        let registry = Registry::new(&[("sn11", eleven), ("sn58", other)], &standing);
        let of = |n| {
            let member = registry.hotkey(&Hotkey([n; 32])).unwrap();
            (member.class, member.group)
        };
        assert_eq!(of(1), (Class::Validator, "sn11"));
        assert_eq!(of(2), (Class::Validator, "sn58"));
        assert_eq!(of(3), (Class::Scorer, "sn11"));
        assert_eq!(of(4), (Class::Miner, "sn58"));
        assert_eq!(of(9), (Class::Scorer, NO_GROUP));
        assert!(registry.hotkey(&Hotkey([8; 32])).is_none());
        assert_eq!(registry.coldkey(&Coldkey([104; 32])), Some("sn58"));
    }

    #[test]
    fn a_snapshot_file_reads_back_and_a_broken_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metagraph-11.json");
        assert_eq!(Snapshot::load(&path), Ok(None));
        let written = snapshot(11, vec![neuron(1, true, 50)]);
        written.save(&path).unwrap();
        assert_eq!(Snapshot::load(&path), Ok(Some(written)));
        std::fs::write(&path, "{").unwrap();
        assert!(Snapshot::load(&path).is_err());
    }
}

//! `NeuronInfoLite`: one neuron's figures as older clients read them.

use super::error::DevChainError;
use super::layout::{encode_struct, option_inner};
use super::metagraph::{Bytes, SubnetView};
use super::storage::Reader;
use super::subnet::storage_index;
use scale_decode::DecodeAsType;

impl SubnetView<'_> {
    /// `Vec<NeuronInfoLite>`; empty for a subnet that does not exist.
    pub(super) fn neurons_lite(&self, output: u32) -> Bytes {
        let lists = Lists::read(&self.reader, self.netuid)?;
        self.list(output, |ty, uid| self.neuron(ty, uid, &lists))
    }

    /// `Option<NeuronInfoLite>`.
    pub(super) fn neuron_lite(&self, output: u32, uid: u16) -> Bytes {
        let uid = usize::from(uid);
        let inner = option_inner(self.reader.runtime, output)
            .ok_or_else(|| DevChainError::encode("get_neuron_lite", "its type is no Option"))?;
        if uid >= self.hotkeys.len() {
            return Ok(vec![0]);
        }
        let lists = Lists::read(&self.reader, self.netuid)?;
        Ok([vec![1], self.neuron(inner, uid, &lists)?].concat())
    }

    fn neuron(&self, ty: u32, uid: usize, lists: &Lists) -> Bytes {
        let hotkey = self.hotkeys[uid];
        let coldkey = self.reader.coldkey(&hotkey)?;
        let mut out = Vec::new();
        encode_struct(self.reader.runtime, ty, &mut out, |name, ty| {
            let number = |list: &[u64]| self.as_type(name, ty, &at(list, uid)).map(Some);
            let flag = |list: &[bool]| self.as_type(name, ty, &at(list, uid)).map(Some);
            match name {
                "hotkey" => self.as_type(name, ty, &hotkey).map(Some),
                "coldkey" => self.as_type(name, ty, &coldkey).map(Some),
                "uid" => self
                    .as_type(name, ty, &u64::try_from(uid).unwrap_or(u64::MAX))
                    .map(Some),
                "netuid" => self.as_type(name, ty, &self.netuid).map(Some),
                "active" => flag(&lists.active),
                "validator_permit" => flag(&lists.permit),
                "stake" => {
                    let stake = self.reader.total_stake(self.netuid, &hotkey)?;
                    self.as_type(name, ty, &vec![(coldkey, stake)]).map(Some)
                }
                "rank" => number(&lists.rank),
                "trust" => number(&lists.trust),
                "emission" => number(&lists.emission),
                "incentive" => number(&lists.incentive),
                "consensus" => number(&lists.consensus),
                "validator_trust" => number(&lists.validator_trust),
                "dividends" => number(&lists.dividends),
                "last_update" => number(&lists.last_update),
                "pruning_score" => {
                    let missing = u64::from(u16::MAX);
                    let score = lists.pruning_score.get(uid).copied().unwrap_or(missing);
                    self.as_type(name, ty, &score).map(Some)
                }
                _ => Ok(None),
            }
        })?;
        Ok(out)
    }
}

fn at<T: Copy + Default>(list: &[T], uid: usize) -> T {
    list.get(uid).copied().unwrap_or_default()
}

/// The per-uid vectors of `NeuronInfoLite`.
struct Lists {
    active: Vec<bool>,
    permit: Vec<bool>,
    rank: Vec<u64>,
    trust: Vec<u64>,
    emission: Vec<u64>,
    incentive: Vec<u64>,
    consensus: Vec<u64>,
    validator_trust: Vec<u64>,
    dividends: Vec<u64>,
    last_update: Vec<u64>,
    pruning_score: Vec<u64>,
}

impl Lists {
    fn read(reader: &Reader<'_>, netuid: u16) -> Result<Self, DevChainError> {
        fn list<T: DecodeAsType>(
            reader: &Reader<'_>,
            entry: &str,
            netuid: u16,
        ) -> Result<Vec<T>, DevChainError> {
            reader.subnet(entry, netuid)
        }
        let index = storage_index(netuid, 0);
        Ok(Self {
            active: list(reader, "Active", netuid)?,
            permit: list(reader, "ValidatorPermit", netuid)?,
            rank: list(reader, "Rank", netuid)?,
            trust: list(reader, "Trust", netuid)?,
            emission: list(reader, "Emission", netuid)?,
            incentive: list(reader, "Incentive", index)?,
            consensus: list(reader, "Consensus", netuid)?,
            validator_trust: list(reader, "ValidatorTrust", netuid)?,
            dividends: list(reader, "Dividends", netuid)?,
            last_update: list(reader, "LastUpdate", index)?,
            pruning_score: list(reader, "PruningScores", netuid)?,
        })
    }
}

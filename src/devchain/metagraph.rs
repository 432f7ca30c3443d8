//! The subnet-wide answers: metagraph, hyperparameters, neurons. All are structs whose fields are
//! filled by name; what this chain does not model is the type's zero.

use super::error::DevChainError;
use super::layout::{element, encode_struct, option_inner, zero};
use super::runtime::Key;
use super::storage::{Reader, SUBTENSOR};
use super::subnet::storage_index;
use scale_encode::EncodeAsType;

/// Field names by their index in `get_selective_metagraph`'s request.
const SELECTIVE: [&str; 74] = [
    "netuid",
    "name",
    "symbol",
    "identity",
    "network_registered_at",
    "owner_hotkey",
    "owner_coldkey",
    "block",
    "tempo",
    "last_step",
    "blocks_since_last_step",
    "subnet_emission",
    "alpha_in",
    "alpha_out",
    "tao_in",
    "alpha_out_emission",
    "alpha_in_emission",
    "tao_in_emission",
    "pending_alpha_emission",
    "pending_root_emission",
    "subnet_volume",
    "moving_price",
    "rho",
    "kappa",
    "min_allowed_weights",
    "max_weights_limit",
    "weights_version",
    "weights_rate_limit",
    "activity_cutoff",
    "max_validators",
    "num_uids",
    "max_uids",
    "burn",
    "difficulty",
    "registration_allowed",
    "pow_registration_allowed",
    "immunity_period",
    "min_difficulty",
    "max_difficulty",
    "min_burn",
    "max_burn",
    "adjustment_alpha",
    "adjustment_interval",
    "target_regs_per_interval",
    "max_regs_per_block",
    "serving_rate_limit",
    "commit_reveal_weights_enabled",
    "commit_reveal_period",
    "liquid_alpha_enabled",
    "alpha_high",
    "alpha_low",
    "bonds_moving_avg",
    "hotkeys",
    "coldkeys",
    "identities",
    "axons",
    "active",
    "validator_permit",
    "pruning_score",
    "last_update",
    "emission",
    "dividends",
    "incentives",
    "consensus",
    "trust",
    "rank",
    "block_at_registration",
    "alpha_stake",
    "tao_stake",
    "total_stake",
    "tao_dividends_per_hotkey",
    "alpha_dividends_per_hotkey",
    "validators",
    "commitments",
];

/// Fields that are one storage value of the subtensor pallet under the netuid: field, entry.
const PLAIN: [(&str, &str); 46] = [
    ("symbol", "TokenSymbol"),
    ("network_registered_at", "NetworkRegisteredAt"),
    ("owner_hotkey", "SubnetOwnerHotkey"),
    ("owner_coldkey", "SubnetOwner"),
    ("tempo", "Tempo"),
    ("last_step", "LastMechansimStepBlock"),
    ("blocks_since_last_step", "BlocksSinceLastStep"),
    ("alpha_in", "SubnetAlphaIn"),
    ("alpha_out", "SubnetAlphaOut"),
    ("tao_in", "SubnetTAO"),
    ("alpha_out_emission", "SubnetAlphaOutEmission"),
    ("alpha_in_emission", "SubnetAlphaInEmission"),
    ("tao_in_emission", "SubnetTaoInEmission"),
    ("subnet_volume", "SubnetVolume"),
    ("moving_price", "SubnetMovingPrice"),
    ("rho", "Rho"),
    ("kappa", "Kappa"),
    ("min_allowed_weights", "MinAllowedWeights"),
    ("max_weights_limit", "MaxWeightsLimit"),
    ("weights_version", "WeightsVersionKey"),
    ("weights_rate_limit", "WeightsSetRateLimit"),
    ("max_validators", "MaxAllowedValidators"),
    ("num_uids", "SubnetworkN"),
    ("max_uids", "MaxAllowedUids"),
    ("burn", "Burn"),
    ("difficulty", "Difficulty"),
    ("registration_allowed", "NetworkRegistrationAllowed"),
    ("pow_registration_allowed", "NetworkPowRegistrationAllowed"),
    ("immunity_period", "ImmunityPeriod"),
    ("min_difficulty", "MinDifficulty"),
    ("max_difficulty", "MaxDifficulty"),
    ("min_burn", "MinBurn"),
    ("max_burn", "MaxBurn"),
    ("adjustment_alpha", "AdjustmentAlpha"),
    ("adjustment_interval", "AdjustmentInterval"),
    ("target_regs_per_interval", "TargetRegistrationsPerInterval"),
    ("max_regs_per_block", "MaxRegistrationsPerBlock"),
    ("serving_rate_limit", "ServingRateLimit"),
    (
        "commit_reveal_weights_enabled",
        "CommitRevealWeightsEnabled",
    ),
    ("commit_reveal_period", "RevealPeriodEpochs"),
    ("liquid_alpha_enabled", "LiquidAlphaOn"),
    ("bonds_moving_avg", "BondsMovingAverage"),
    ("subnet_is_active", "SubtokenEnabled"),
    ("transfers_enabled", "TransferToggle"),
    ("bonds_reset_enabled", "BondsResetOn"),
    ("user_liquidity_enabled", "EnabledUserLiquidity"),
];

/// Fields that are a vector over uids, empty where the runtime lost the entry.
const VECTORS: [(&str, &str); 9] = [
    ("active", "Active"),
    ("validator_permit", "ValidatorPermit"),
    ("pruning_score", "PruningScores"),
    ("last_update", "LastUpdate"),
    ("emission", "Emission"),
    ("dividends", "Dividends"),
    ("incentives", "Incentive"),
    ("consensus", "Consensus"),
    ("trust", "Trust"),
];

pub(super) type Bytes = Result<Vec<u8>, DevChainError>;

/// One subnet at one block.
#[derive(Debug)]
pub(super) struct SubnetView<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) netuid: u16,
    exists: bool,
    pub(super) hotkeys: Vec<[u8; 32]>,
}

impl<'a> SubnetView<'a> {
    pub(super) fn new(reader: Reader<'a>, netuid: u16) -> Result<Self, DevChainError> {
        let exists = reader.subnet_exists(netuid)?;
        let n: u16 = reader.subnet("SubnetworkN", netuid)?;
        let hotkeys = (0..n).map(|uid| reader.hotkey(netuid, uid));
        Ok(Self {
            reader,
            netuid,
            exists,
            hotkeys: hotkeys.collect::<Result<_, _>>()?,
        })
    }

    /// `Option<SelectiveMetagraph>`: only the requested fields, by index.
    pub(super) fn selective_metagraph(&self, output: u32, indices: &[u16]) -> Bytes {
        let wanted: Vec<&str> = indices
            .iter()
            .filter_map(|i| SELECTIVE.get(usize::from(*i)).copied())
            .collect();
        self.optional(output, |name, ty| {
            let Some(inner) = option_inner(self.reader.runtime, ty) else {
                // `netuid` alone is not optional; unasked it stays 0.
                return if wanted.contains(&name) {
                    self.field(name, ty)
                } else {
                    Ok(None)
                };
            };
            if !wanted.contains(&name) {
                return Ok(None);
            }
            let Some(bytes) = self.field(name, inner)? else {
                return Ok(None);
            };
            Ok(Some([vec![1], bytes].concat()))
        })
    }

    /// `Option<Metagraph>` or `Option<SubnetHyperparams…>`.
    pub(super) fn optional_struct(&self, output: u32) -> Bytes {
        self.optional(output, |name, ty| self.field(name, ty))
    }

    fn optional(
        &self,
        output: u32,
        field: impl FnMut(&str, u32) -> Result<Option<Vec<u8>>, DevChainError>,
    ) -> Bytes {
        if !self.exists {
            return Ok(vec![0]);
        }
        let inner = option_inner(self.reader.runtime, output)
            .ok_or_else(|| DevChainError::encode("a subnet answer", "its type is no Option"))?;
        let mut out = vec![1];
        encode_struct(self.reader.runtime, inner, &mut out, field)?;
        Ok(out)
    }

    pub(super) fn as_type<T: EncodeAsType>(&self, name: &str, ty: u32, value: &T) -> Bytes {
        self.reader.runtime.encode(name, ty, value)
    }

    /// One field by name; `None` for what this chain does not model: the runtime's table of subnet
    /// names, identities, root dividends.
    fn field(&self, name: &str, ty: u32) -> Result<Option<Vec<u8>>, DevChainError> {
        if let Some((_, entry)) = PLAIN.iter().find(|(field, _)| *field == name) {
            return self.plain(name, entry, ty);
        }
        if let Some((_, entry)) = VECTORS.iter().find(|(field, _)| *field == name) {
            return self.vector(name, entry, ty).map(Some);
        }
        let bytes = match name {
            "netuid" => self.as_type(name, ty, &self.netuid)?,
            "block" => self.as_type(name, ty, &self.reader.number()?)?,
            "activity_cutoff" => {
                let cutoff = self.reader.activity_cutoff(self.netuid)?;
                self.as_type(name, ty, &cutoff)?
            }
            "alpha_high" | "alpha_low" => {
                // Stored as (low, high).
                let (low, high): (u16, u16) = self.reader.subnet("AlphaValues", self.netuid)?;
                self.as_type(name, ty, if name == "alpha_low" { &low } else { &high })?
            }
            "yuma_version" => {
                let yuma3: bool = self.reader.subnet("Yuma3On", self.netuid)?;
                self.as_type(name, ty, if yuma3 { &3u16 } else { &2u16 })?
            }
            "subnet_emission" => {
                let emission: u64 = self.reader.subnet("SubnetTaoInEmission", self.netuid)?;
                self.as_type(name, ty, &emission)?
            }
            "alpha_sigmoid_steepness" => {
                // Stored as a whole number, answered as 32.32 fixed point.
                let steepness: i64 = self.reader.subnet("AlphaSigmoidSteepness", self.netuid)?;
                self.as_type(name, ty, &(steepness << 32))?
            }
            "pending_alpha_emission" => {
                let server: u64 = self.reader.subnet("PendingServerEmission", self.netuid)?;
                let validator: u64 = self
                    .reader
                    .subnet("PendingValidatorEmission", self.netuid)?;
                self.as_type(name, ty, &server.saturating_add(validator))?
            }
            _ => return self.list_field(name, ty),
        };
        Ok(Some(bytes))
    }

    /// The fields that are lists, over uids or accounts.
    fn list_field(&self, name: &str, ty: u32) -> Result<Option<Vec<u8>>, DevChainError> {
        let bytes = match name {
            "identities" => self.list(ty, |inner, _| {
                let mut none = Vec::new();
                zero(self.reader.runtime, inner, &mut none).map(|()| none)
            })?,
            "axons" => self.list(ty, |inner, uid| self.axon(inner, &self.hotkeys[uid]))?,
            "tao_dividends_per_hotkey" => {
                let none: Vec<([u8; 32], u64)> = self.hotkeys.iter().map(|h| (*h, 0)).collect();
                self.as_type(name, ty, &none)?
            }
            "alpha_dividends_per_hotkey" => {
                let pairs = self.per_hotkey(|hotkey| {
                    let keys = [Key::U16(self.netuid), Key::Account(*hotkey)];
                    let entry = "AlphaDividendsPerSubnet";
                    let dividend: u64 = self.reader.or_default(SUBTENSOR, entry, &keys)?;
                    Ok((*hotkey, dividend))
                })?;
                self.as_type(name, ty, &pairs)?
            }
            "hotkeys" => self.as_type(name, ty, &self.hotkeys)?,
            "coldkeys" => {
                let owners = self.per_hotkey(|hotkey| self.reader.coldkey(hotkey))?;
                self.as_type(name, ty, &owners)?
            }
            "block_at_registration" => {
                let uids = 0..u16::try_from(self.hotkeys.len()).unwrap_or(u16::MAX);
                let blocks = uids.map(|uid| self.reader.registered_at(self.netuid, uid));
                let blocks: Vec<u64> = blocks.collect::<Result<_, _>>()?;
                self.as_type(name, ty, &blocks)?
            }
            "alpha_stake" => {
                let stakes = self.per_hotkey(|h| self.reader.alpha_stake(self.netuid, h))?;
                self.as_type(name, ty, &stakes)?
            }
            "tao_stake" => {
                let stakes = self.per_hotkey(|h| self.reader.tao_stake(h))?;
                self.as_type(name, ty, &stakes)?
            }
            "total_stake" => {
                let stakes = self.per_hotkey(|h| self.reader.total_stake(self.netuid, h))?;
                self.as_type(name, ty, &stakes)?
            }
            "validators" => {
                let permits: Vec<bool> = self.reader.subnet("ValidatorPermit", self.netuid)?;
                let uids = (0u16..)
                    .zip(permits)
                    .filter(|(_, p)| *p)
                    .map(|(uid, _)| uid);
                self.as_type(name, ty, &uids.collect::<Vec<u16>>())?
            }
            "commitments" => self.as_type(name, ty, &self.commitments())?,
            _ => return Ok(None),
        };
        Ok(Some(bytes))
    }

    /// A list with one element per uid.
    pub(super) fn list(&self, ty: u32, each: impl Fn(u32, usize) -> Bytes) -> Bytes {
        let inner = element(self.reader.runtime, ty)
            .ok_or_else(|| DevChainError::encode("a list over uids", "its type is no Vec"))?;
        let count = u32::try_from(self.hotkeys.len()).unwrap_or(u32::MAX);
        let mut out = codec::Encode::encode(&codec::Compact(count));
        for uid in 0..self.hotkeys.len() {
            out.extend(each(inner, uid)?);
        }
        Ok(out)
    }

    fn axon(&self, ty: u32, hotkey: &[u8; 32]) -> Bytes {
        let keys = [Key::U16(self.netuid), Key::Account(*hotkey)];
        let stored: Option<scale_value::Value> = self.reader.get(SUBTENSOR, "Axons", &keys)?;
        match stored {
            Some(axon) => self.as_type("axons", ty, &axon),
            None => {
                let mut empty = Vec::new();
                zero(self.reader.runtime, ty, &mut empty).map(|()| empty)
            }
        }
    }

    fn per_hotkey<T>(
        &self,
        read: impl Fn(&[u8; 32]) -> Result<T, DevChainError>,
    ) -> Result<Vec<T>, DevChainError> {
        self.hotkeys.iter().map(read).collect()
    }

    /// One storage value, re-encoded to the field's type.
    fn plain(&self, name: &str, entry: &str, ty: u32) -> Result<Option<Vec<u8>>, DevChainError> {
        let keys = [Key::U16(self.netuid)];
        let value: Option<scale_value::Value> = self.reader.get(SUBTENSOR, entry, &keys)?;
        let Some(value) = value else { return Ok(None) };
        self.as_type(name, ty, &value).map(Some)
    }

    fn vector(&self, name: &str, entry: &str, ty: u32) -> Bytes {
        if entry == "Active" || entry == "ValidatorPermit" {
            let values: Vec<bool> = self.reader.subnet(entry, self.netuid)?;
            return self.as_type(name, ty, &values);
        }
        let index = storage_index(self.netuid, 0);
        let values: Vec<u64> = self.reader.subnet(entry, index)?;
        self.as_type(name, ty, &values)
    }

    /// All of `CommitmentOf` under this netuid: account and the registration's SCALE bytes.
    fn commitments(&self) -> Vec<([u8; 32], Vec<u8>)> {
        let Some(entry) = self.reader.runtime.entry("Commitments", "CommitmentOf") else {
            return Vec::new();
        };
        let prefix = entry.key(&[Key::U16(self.netuid)]);
        let keys = self.reader.view.keys(&prefix, None, usize::MAX);
        keys.iter()
            .filter_map(|key| {
                let account = key.get(key.len().checked_sub(32)?..)?.try_into().ok()?;
                Some((account, self.reader.view.get(key)?.to_vec()))
            })
            .collect()
    }
}

//! The first state: what the genesis file says, laid out as the chain stores it.

use super::account;
use super::error::DevChainError;
use super::registration;
use super::runtime::Key;
use super::storage::{SUBTENSOR, Writer};
use super::subnet::storage_index;
use serde::{Deserialize, Deserializer};
use sp_core::crypto::{AccountId32, DEV_PHRASE, SecretUri, Ss58Codec};
use sp_core::{Pair, sr25519};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

/// The chain's beginning. Amounts are in rao, 10⁻⁹ TAO (or alpha); keys are SS58 addresses or dev
/// URIs such as `//Alice`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Genesis {
    /// Answer of `system_chain`.
    pub chain: String,
    /// Time between blocks; also what the runtime's constants and `AuraApi` report.
    #[serde(deserialize_with = "duration")]
    pub block_time: Duration,
    /// The sudo account.
    pub sudo: String,
    /// `StakeThreshold`: stake below which weights are refused.
    pub stake_threshold: u64,
    /// `TaoWeight` in 2⁻⁶⁴; absent: the runtime's default.
    pub tao_weight: Option<u64>,
    /// `CommitRevealWeightsVersion`.
    pub commit_reveal_version: u16,
    /// What the secret key of the chain's own randomness beacon is made of; its public key is
    /// answered by `dev_beacon`.
    pub beacon_seed: String,
    /// Time between the beacon's rounds.
    #[serde(deserialize_with = "duration")]
    pub beacon_period: Duration,
    /// Subnets.
    #[serde(rename = "subnet")]
    pub subnets: Vec<GenesisSubnet>,
    /// Free balances.
    #[serde(rename = "balance")]
    pub balances: Vec<GenesisBalance>,
}

impl Default for Genesis {
    fn default() -> Self {
        Self {
            chain: "Assay Dev".to_owned(),
            block_time: Duration::from_secs(12),
            sudo: "//Alice".to_owned(),
            stake_threshold: 0,
            tao_weight: None,
            commit_reveal_version: 4,
            beacon_seed: "assay dev beacon".to_owned(),
            beacon_period: Duration::from_secs(3),
            subnets: Vec::new(),
            balances: Vec::new(),
        }
    }
}

/// One subnet with its neurons; the fields carry the names of the metagraph's.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenesisSubnet {
    /// The subnet's number, not 0.
    pub netuid: u16,
    /// Blocks between epochs.
    pub tempo: u16,
    /// `SubnetOwnerHotkey`. It holds a uid only when it is among the neurons.
    pub owner_hotkey: String,
    /// `SubnetOwner`.
    pub owner_coldkey: String,
    /// Whether weights must be committed and revealed.
    pub commit_reveal_weights_enabled: bool,
    /// Epochs until a commit is revealed.
    pub commit_reveal_period: u64,
    /// Blocks between two weights calls of one hotkey.
    pub weights_rate_limit: u64,
    /// Least version key that weights calls must carry; 0 accepts all.
    pub weights_version: u64,
    /// Least number of entries in a weights call.
    pub min_allowed_weights: u16,
    /// Largest share of one entry, 65535 = no limit.
    pub max_weights_limit: u16,
    /// Blocks after registration without pruning.
    pub immunity_period: u16,
    /// Seats of validators.
    pub max_validators: u16,
    /// Slots.
    pub max_uids: u16,
    /// Incentive mechanisms.
    pub mechanisms: u8,
    /// Price of a registration.
    pub burn: u64,
    /// Neurons in the order of their uids.
    #[serde(rename = "neuron")]
    pub neurons: Vec<GenesisNeuron>,
}

impl Default for GenesisSubnet {
    fn default() -> Self {
        Self {
            netuid: 1,
            tempo: 360,
            owner_hotkey: "//OwnerHot".to_owned(),
            owner_coldkey: "//Owner".to_owned(),
            commit_reveal_weights_enabled: false,
            commit_reveal_period: 1,
            weights_rate_limit: 100,
            weights_version: 0,
            min_allowed_weights: 1,
            max_weights_limit: u16::MAX,
            immunity_period: 5000,
            max_validators: 64,
            max_uids: 256,
            mechanisms: 1,
            burn: 1_000_000_000,
            neurons: Vec::new(),
        }
    }
}

/// One neuron.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisNeuron {
    /// The hotkey.
    pub hotkey: String,
    /// Its coldkey; absent: the subnet owner's.
    #[serde(default)]
    pub coldkey: Option<String>,
    /// Alpha staked on it.
    #[serde(default)]
    pub stake: u64,
    /// Its permit until the first epoch decides by stake.
    #[serde(default)]
    pub validator_permit: bool,
    /// Block of registration, which is also its first `LastUpdate`.
    #[serde(default)]
    pub registered_at: u64,
}

/// A free balance.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisBalance {
    /// Whose.
    pub account: String,
    /// How much.
    pub free: u64,
}

fn duration<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(d)?;
    humantime::parse_duration(&text)
        .map_err(|e| serde::de::Error::custom(format!("{text:?} is no duration: {e}")))
}

impl Genesis {
    /// A chain to try things on: subnet 11 with an owner, a validator of 5000 alpha and eight
    /// miners, `//Miner1` to `//Miner8`, tempo 20, half a second per block.
    #[must_use]
    pub fn dev() -> Self {
        let neuron = |hotkey: &str, coldkey: &str, stake| GenesisNeuron {
            hotkey: hotkey.to_owned(),
            coldkey: Some(coldkey.to_owned()),
            stake,
            validator_permit: stake > 0,
            registered_at: 0,
        };
        let mut neurons = vec![
            neuron("//OwnerHot", "//Owner", 0),
            neuron("//Validator", "//Bob", 5_000_000_000_000),
        ];
        neurons.extend((1..=8).map(|n| neuron(&format!("//Miner{n}"), "//Charlie", 0)));
        let rich = ["//Alice", "//Bob", "//Charlie"];
        Self {
            block_time: Duration::from_millis(500),
            stake_threshold: 1_000_000_000_000,
            subnets: vec![GenesisSubnet {
                netuid: 11,
                tempo: 20,
                weights_rate_limit: 5,
                neurons,
                ..GenesisSubnet::default()
            }],
            balances: rich
                .map(|account| GenesisBalance {
                    account: account.to_owned(),
                    free: 1_000_000_000_000_000,
                })
                .to_vec(),
            ..Self::default()
        }
    }

    /// Reads a genesis file.
    ///
    /// # Errors
    /// [`DevChainError::Genesis`] with place and reason.
    pub fn from_toml(text: &str) -> Result<Self, DevChainError> {
        toml::from_str(text).map_err(|e| DevChainError::Genesis(e.to_string()))
    }
}

/// The key pair of a dev URI such as `//Alice`: the well-known dev phrase with the URI's junctions.
///
/// # Errors
/// [`DevChainError::Genesis`] when the text is no such URI.
pub fn dev_key(uri: &str) -> Result<sr25519::Pair, DevChainError> {
    // Deriving a seed from the phrase is made slow on purpose; all dev keys share this one.
    static ROOT: OnceLock<Option<sr25519::Pair>> = OnceLock::new();
    let fail = |reason: String| DevChainError::Genesis(format!("{uri:?} is no dev key: {reason}"));
    if !uri.starts_with("//") {
        return Err(fail("it does not start with //".to_owned()));
    }
    let path = SecretUri::from_str(uri).map_err(|e| fail(e.to_string()))?;
    let root = ROOT.get_or_init(|| {
        sr25519::Pair::from_phrase(DEV_PHRASE, None)
            .ok()
            .map(|p| p.0)
    });
    let root = root
        .as_ref()
        .ok_or_else(|| fail("the dev phrase does not parse".to_owned()))?;
    let derived = root.derive(path.junctions.into_iter(), None);
    derived
        .map(|(pair, _)| pair)
        .map_err(|e| fail(e.to_string()))
}

/// The public key of an SS58 address or of a dev URI such as `//Alice`.
///
/// # Errors
/// [`DevChainError::Genesis`] when the text is neither.
pub fn account_id(text: &str) -> Result<[u8; 32], DevChainError> {
    if text.starts_with("//") {
        return Ok(dev_key(text)?.public().0);
    }
    let account = AccountId32::from_ss58check(text)
        .map_err(|e| DevChainError::Genesis(format!("{text:?} is no key: {e}")))?;
    Ok(account.into())
}

/// Writes the genesis state.
pub(super) fn build(writer: &mut Writer<'_>, genesis: &Genesis) -> Result<(), DevChainError> {
    writer.put("Sudo", "Key", &[], &account_id(&genesis.sudo)?)?;
    writer.put(SUBTENSOR, "StakeThreshold", &[], &genesis.stake_threshold)?;
    let version = genesis.commit_reveal_version;
    writer.put(SUBTENSOR, "CommitRevealWeightsVersion", &[], &version)?;
    if let Some(weight) = genesis.tao_weight {
        writer.put(SUBTENSOR, "TaoWeight", &[], &weight)?;
    }
    // The root network exists on every chain.
    writer.put_subnet("NetworksAdded", 0, &true)?;
    writer.put_subnet("SubnetworkN", 0, &0u16)?;
    for subnet in &genesis.subnets {
        build_subnet(writer, subnet)?;
    }
    for balance in &genesis.balances {
        account::deposit(writer, &account_id(&balance.account)?, balance.free)?;
    }
    Ok(())
}

fn build_subnet(writer: &mut Writer<'_>, subnet: &GenesisSubnet) -> Result<(), DevChainError> {
    let netuid = subnet.netuid;
    if netuid == 0 || writer.read().subnet_exists(netuid)? {
        return Err(DevChainError::Genesis(format!(
            "netuid {netuid} is the root network or given twice"
        )));
    }
    let owner_coldkey = account_id(&subnet.owner_coldkey)?;
    writer.put_subnet("NetworksAdded", netuid, &true)?;
    writer.put_subnet("SubnetOwner", netuid, &owner_coldkey)?;
    let owner_hotkey = account_id(&subnet.owner_hotkey)?;
    writer.put_subnet("SubnetOwnerHotkey", netuid, &owner_hotkey)?;
    writer.put_subnet("Tempo", netuid, &subnet.tempo)?;
    writer.put_subnet(
        "CommitRevealWeightsEnabled",
        netuid,
        &subnet.commit_reveal_weights_enabled,
    )?;
    writer.put_subnet("RevealPeriodEpochs", netuid, &subnet.commit_reveal_period)?;
    writer.put_subnet("WeightsSetRateLimit", netuid, &subnet.weights_rate_limit)?;
    writer.put_subnet("WeightsVersionKey", netuid, &subnet.weights_version)?;
    writer.put_subnet("MinAllowedWeights", netuid, &subnet.min_allowed_weights)?;
    writer.put_subnet("MaxWeightsLimit", netuid, &subnet.max_weights_limit)?;
    writer.put_subnet("ImmunityPeriod", netuid, &subnet.immunity_period)?;
    writer.put_subnet("MaxAllowedValidators", netuid, &subnet.max_validators)?;
    writer.put_subnet("MaxAllowedUids", netuid, &subnet.max_uids)?;
    writer.put_subnet("MechanismCountCurrent", netuid, &subnet.mechanisms)?;
    writer.put_subnet("Burn", netuid, &subnet.burn)?;
    writer.put_subnet("NetworkRegistrationAllowed", netuid, &true)?;
    writer.put_subnet("LastEpochBlock", netuid, &0u64)?;
    for (uid, neuron) in subnet.neurons.iter().enumerate() {
        let uid = u16::try_from(uid)
            .map_err(|_| DevChainError::Genesis(format!("subnet {netuid}: too many neurons")))?;
        place_neuron(writer, subnet, uid, neuron)?;
    }
    Ok(())
}

fn place_neuron(
    writer: &mut Writer<'_>,
    subnet: &GenesisSubnet,
    uid: u16,
    neuron: &GenesisNeuron,
) -> Result<(), DevChainError> {
    let netuid = subnet.netuid;
    let hotkey = account_id(&neuron.hotkey)?;
    let coldkey = account_id(neuron.coldkey.as_ref().unwrap_or(&subnet.owner_coldkey))?;
    if writer.read().uid(netuid, &hotkey)?.is_some() {
        return Err(DevChainError::Genesis(format!(
            "subnet {netuid}: hotkey {} given twice",
            neuron.hotkey
        )));
    }
    registration::place(writer, netuid, uid, (hotkey, coldkey), neuron.registered_at)?;
    let staked = [Key::Account(hotkey), Key::U16(netuid)];
    writer.put(SUBTENSOR, "TotalHotkeyAlpha", &staked, &neuron.stake)?;
    let index = storage_index(netuid, 0);
    let mut permits: Vec<bool> = writer.read().subnet("ValidatorPermit", index)?;
    if let Some(permit) = permits.get_mut(usize::from(uid)) {
        *permit = neuron.validator_permit;
    }
    writer.put_subnet("ValidatorPermit", netuid, &permits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_all_and_nothing_unknown() {
        let genesis = Genesis::from_toml(
            r#"
            block_time = "500ms"
            stake_threshold = 1_000_000_000_000
            [[subnet]]
            netuid = 11
            tempo = 20
            [[subnet.neuron]]
            hotkey = "//Validator"
            stake = 5_000_000_000_000
            validator_permit = true
            [[balance]]
            account = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
            free = 10
            "#,
        )
        .unwrap();
        assert_eq!(genesis.block_time, Duration::from_millis(500));
        assert_eq!(genesis.subnets[0].neurons[0].hotkey, "//Validator");
        assert!(Genesis::from_toml("tempo = 20").is_err());
        assert!(Genesis::from_toml("block_time = 500").is_err());
    }

    #[test]
    fn keys_are_addresses_or_uris() {
        let alice = account_id("//Alice").unwrap();
        let address = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
        assert_eq!(account_id(address).unwrap(), alice);
        let whole = sr25519::Pair::from_string("//Alice//stash", None).unwrap();
        assert_eq!(account_id("//Alice//stash").unwrap(), whole.public().0);
        assert!(account_id("Alice").is_err());
    }
}

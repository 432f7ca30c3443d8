//! Everything that this program ever signs for the chain, and its form on the wire.

use super::commitments;
use crate::bittensor::{MechanismId, Netuid, Uid};
use scale_value::{Composite, Value};

/// A call by names, encoded later from live metadata.
pub(super) type Payload = subxt::tx::DynamicPayload<Composite<()>>;

/// Everything that this program ever signs for the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `Commitments.set_commitment` with one text field of at most 512 bytes.
    SetCommitment {
        /// Subnet that the hotkey is registered on.
        netuid: Netuid,
        /// The text, `Raw{n}` up to 128 bytes, `BigRaw` beyond.
        text: String,
    },
    /// `SubtensorModule.set_mechanism_weights`, refused here while the subnet demands commit-reveal.
    SetMechanismWeights {
        /// Subnet.
        netuid: Netuid,
        /// Mechanism; 0 on most subnets.
        mechanism: MechanismId,
        /// Targets and values, as the chain expects them.
        weights: Vec<(Uid, u16)>,
        /// Must not be below the subnet's `WeightsVersionKey`.
        version_key: u64,
    },
    /// `SubtensorModule.commit_timelocked_mechanism_weights`: weights that open at a beacon's round.
    CommitTimelockedWeights {
        /// Subnet.
        netuid: Netuid,
        /// Mechanism; 0 on most subnets.
        mechanism: MechanismId,
        /// Output of [`super::timelock::encrypt`], at most 5000 bytes.
        commit: Vec<u8>,
        /// The round that it was encrypted for.
        reveal_round: u64,
    },
}

/// `CommitRevealWeightsVersion` that this program speaks.
pub const COMMIT_REVEAL_VERSION: u16 = 4;
/// Longest commit that the chain takes, in bytes.
const COMMIT_BYTES_MAX: usize = 5000;

impl Call {
    /// The subnet that the call is about.
    #[must_use]
    pub fn netuid(&self) -> Netuid {
        match self {
            Self::SetCommitment { netuid, .. }
            | Self::SetMechanismWeights { netuid, .. }
            | Self::CommitTimelockedWeights { netuid, .. } => *netuid,
        }
    }

    /// The call by names; the error says why this can be no call.
    pub(super) fn payload(&self) -> Result<Payload, String> {
        match self {
            Self::SetCommitment { netuid, text } => set_commitment(*netuid, text),
            Self::SetMechanismWeights {
                netuid,
                mechanism,
                weights,
                version_key,
            } => set_mechanism_weights(*netuid, *mechanism, weights, *version_key),
            Self::CommitTimelockedWeights {
                netuid,
                mechanism,
                commit,
                reveal_round,
            } => commit_timelocked(*netuid, *mechanism, commit, *reveal_round),
        }
    }
}

fn set_commitment(netuid: Netuid, text: &str) -> Result<Payload, String> {
    let info = commitments::info(text)
        .ok_or_else(|| format!("the text has {} bytes, at most 512 fit", text.len()))?;
    let fields = named([("netuid", number(netuid.0)), ("info", info)]);
    Ok(subxt::dynamic::tx("Commitments", "set_commitment", fields))
}

fn set_mechanism_weights(
    netuid: Netuid,
    mechanism: MechanismId,
    weights: &[(Uid, u16)],
    version_key: u64,
) -> Result<Payload, String> {
    if weights.iter().all(|(_, weight)| *weight == 0) {
        return Err("the weights are empty or all zero".to_owned());
    }
    let dests = weights.iter().map(|(uid, _)| number(uid.0));
    let values = weights.iter().map(|(_, weight)| number(*weight));
    let fields = named([
        ("netuid", number(netuid.0)),
        ("mecid", number(mechanism.0)),
        ("dests", Value::unnamed_composite(dests)),
        ("weights", Value::unnamed_composite(values)),
        ("version_key", number(version_key)),
    ]);
    Ok(subxt::dynamic::tx(
        "SubtensorModule",
        "set_mechanism_weights",
        fields,
    ))
}

fn commit_timelocked(
    netuid: Netuid,
    mechanism: MechanismId,
    commit: &[u8],
    reveal_round: u64,
) -> Result<Payload, String> {
    if commit.len() > COMMIT_BYTES_MAX {
        let length = commit.len();
        return Err(format!(
            "the commit has {length} bytes, at most {COMMIT_BYTES_MAX} fit"
        ));
    }
    let fields = named([
        ("netuid", number(netuid.0)),
        ("mecid", number(mechanism.0)),
        ("commit", Value::from_bytes(commit)),
        ("reveal_round", number(reveal_round)),
        ("commit_reveal_version", number(COMMIT_REVEAL_VERSION)),
    ]);
    Ok(subxt::dynamic::tx(
        "SubtensorModule",
        "commit_timelocked_mechanism_weights",
        fields,
    ))
}

fn number(n: impl Into<u64>) -> Value<()> {
    Value::u128(u128::from(n.into()))
}

fn named<const N: usize>(fields: [(&str, Value<()>); N]) -> Composite<()> {
    Composite::Named(fields.map(|(name, value)| (name.to_owned(), value)).into())
}

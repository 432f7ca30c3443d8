//! What a call costs its signer, asked of the chain before it is sent.

use super::connect::ChainClient;
use super::error::ChainError;
use super::submit::SignedCall;
use super::view::{Entry, View};
use crate::bittensor::{BlockRef, Hotkey, Netuid};
use codec::Decode;
use scale_decode::DecodeAsType;

const MAX_SPACE: Entry = Entry("Commitments", "MaxSpace");
const USED_SPACE: Entry = Entry("Commitments", "UsedSpaceOf");
const QUERY_INFO: (&str, &str) = ("TransactionPaymentApi", "query_info");
/// Least space that the pallet charges for one commitment (`MIN_SPACE`).
const LEAST_SPACE: u64 = 100;

/// What the commitments pallet asks of one hotkey on one subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitmentTerms {
    /// `MaxSpace`: bytes per epoch.
    pub space_max: u64,
    /// Bytes used in the present epoch.
    pub space_used: u64,
    /// Reserved for any commitment, in the chain's 10⁻⁹ unit.
    pub initial_deposit: u64,
    /// Reserved for each field, in the chain's 10⁻⁹ unit.
    pub field_deposit: u64,
}

impl CommitmentTerms {
    /// Bytes that one text field of this length is charged.
    #[must_use]
    pub fn space_of(bytes: usize) -> u64 {
        u64::try_from(bytes).unwrap_or(u64::MAX).max(LEAST_SPACE)
    }

    /// Bytes left in the present epoch.
    #[must_use]
    pub fn space_left(&self) -> u64 {
        self.space_max.saturating_sub(self.space_used)
    }
}

/// `UsageTracker`.
#[derive(DecodeAsType)]
struct Usage {
    last_epoch: u64,
    used_space: u64,
}

/// The part of `RuntimeDispatchInfo` that is read.
#[derive(DecodeAsType)]
struct DispatchInfo {
    partial_fee: u64,
}

impl ChainClient {
    /// What a commitment of `hotkey` costs at that block. Four requests.
    ///
    /// # Errors
    /// Any [`ChainError`].
    pub async fn commitment_terms(
        &self,
        at: BlockRef,
        netuid: Netuid,
        hotkey: &Hotkey,
    ) -> Result<CommitmentTerms, ChainError> {
        let epoch = self.epoch_state(at, netuid).await?.index;
        self.read("reading the cost of a commitment", async {
            let view = self.view(at).await?;
            let keys = [
                view.key(MAX_SPACE, ())?,
                view.key(USED_SPACE, (netuid.0, hotkey.0))?,
            ];
            let values = view.values(&keys).await?;
            let value = |i: usize| values.get(i).and_then(Option::as_deref);
            let space_max: u32 = view.decode_present(MAX_SPACE, value(0))?;
            let usage: Option<Usage> = match value(1) {
                Some(stored) => view.decode(USED_SPACE, Some(stored))?,
                None => None,
            };
            Ok(CommitmentTerms {
                space_max: space_max.into(),
                space_used: usage
                    .filter(|usage| usage.last_epoch == epoch)
                    .map_or(0, |usage| usage.used_space),
                initial_deposit: deposit(&view, "InitialDeposit")?,
                field_deposit: deposit(&view, "FieldDeposit")?,
            })
        })
        .await
    }

    /// The fee that the chain would take for these very bytes, in its 10⁻⁹ unit: 0 for everything that
    /// this program signs, as long as the runtime says `Pays::No`. Two requests; nothing is sent to
    /// the pool.
    ///
    /// # Errors
    /// Any [`ChainError`].
    pub async fn fee(&self, at: BlockRef, signed: &SignedCall) -> Result<u64, ChainError> {
        self.read("asking for the fee", async {
            let view = self.view(at).await?;
            let length = u32::try_from(signed.encoded().len())
                .map_err(|e| ChainError::unreadable("the extrinsic", e))?;
            let args = [signed.encoded(), &length.to_le_bytes()].concat();
            let info: DispatchInfo = view.call_encoded(QUERY_INFO, &args).await?;
            Ok(info.partial_fee)
        })
        .await
    }
}

fn deposit(view: &View, name: &str) -> Result<u64, ChainError> {
    let what = format!("the constant Commitments.{name}");
    let pallet = view.metadata().pallet_by_name("Commitments");
    let constant = pallet.as_ref().and_then(|p| p.constant_by_name(name));
    let constant =
        constant.ok_or_else(|| ChainError::unreadable(&what, "this runtime lacks it"))?;
    u64::decode(&mut constant.value()).map_err(|e| ChainError::unreadable(&what, e))
}

//! When a block was made, also long after its state is gone.

use super::{ChainClient, ChainError};
use crate::bittensor::BlockRef;
use codec::{Compact, Decode};
use subxt::utils::H256;

impl ChainClient {
    /// The time that the block's author set, unix milliseconds: `Timestamp.set`, the first extrinsic
    /// of every block but the genesis, which gives 0. Read from the block's body, which nodes keep
    /// when they have dropped the state. One request.
    ///
    /// # Errors
    /// [`ChainError::BlockGone`] when the endpoint has no such block; [`ChainError::Unreadable`]
    /// when its first extrinsic is something else.
    pub async fn block_time_ms(&self, block: BlockRef) -> Result<u64, ChainError> {
        if block.number.0 == 0 {
            return Ok(0);
        }
        let what = "reading a block's time";
        self.read(what, async {
            let answer = self
                .inner
                .rpc
                .chain_get_block(Some(H256(block.hash.0)))
                .await;
            let found = answer
                .map_err(|e| ChainError::from_rpc(what, Some(block.hash), e))?
                .ok_or_else(|| ChainError::BlockGone {
                    block: block.hash.to_string(),
                })?;
            let first = found.block.extrinsics.first().map(|bytes| &bytes.0[..]);
            first.and_then(set_time).ok_or_else(|| {
                let reason = format!("block {} does not begin with Timestamp.set", block.number);
                ChainError::unreadable("the time of a block", reason)
            })
        })
        .await
    }
}

/// Reads a bare extrinsic (version 4 or 5) of the form `Timestamp.set(now)`: length, version, the
/// indices of pallet and call, and one compact number that ends it. No other inherent has this form.
fn set_time(extrinsic: &[u8]) -> Option<u64> {
    let mut rest = extrinsic;
    let length = Compact::<u32>::decode(&mut rest).ok()?.0;
    if usize::try_from(length).ok()? != rest.len() {
        return None;
    }
    let [4 | 5, _pallet, _call, number @ ..] = rest else {
        return None;
    };
    let mut number = number;
    let now = Compact::<u64>::decode(&mut number).ok()?.0;
    number.is_empty().then_some(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use codec::Encode;

    #[test]
    fn only_a_timestamp_is_read_as_one() {
        let body = |version: u8| (version, 2u8, 0u8, Compact(1_764_115_199_000u64)).encode();
        for version in [4, 5] {
            assert_eq!(set_time(&body(version).encode()), Some(1_764_115_199_000));
        }
        assert_eq!(set_time(&body(0x84).encode()), None, "signed");
        assert_eq!(
            set_time(&[body(4), vec![0]].concat().encode()),
            None,
            "longer"
        );
        assert_eq!(set_time(&body(4)), None, "without its length");
        assert_eq!(set_time(&[]), None);
    }
}

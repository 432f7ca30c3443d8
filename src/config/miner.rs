//! What a miner's commands read: the chain, the key, and as far as they are known the hub and the rules.

use super::reader::Section;
use super::validator::{self, Chain, Hub, Wallet};
use crate::incentive::Era;
use serde::Serialize;

/// Everything that `assay commit` and `assay chain` need to know, checked. A validator's file serves,
/// too.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Miner {
    /// `[chain]`.
    pub chain: Chain,
    /// `[wallet]`.
    pub wallet: Wallet,
    /// `[hub]`, where the model is looked up before it is committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub: Option<Hub>,
    /// `[[era]]`: the rules, as the subnet publishes them; empty: only what holds in every era is
    /// checked.
    #[serde(rename = "era", skip_serializing_if = "Vec::is_empty")]
    pub eras: Vec<Era>,
}

pub(super) fn miner(root: &mut Section<'_>) -> Option<Miner> {
    let chain = validator::chain(root.section("chain"));
    let wallet = validator::wallet(root.section("wallet"));
    let has_hub = root.has("hub");
    let hub = has_hub.then(|| validator::hub(root.section("hub")));
    let eras = if root.has("era") {
        super::eras(root)
    } else {
        Vec::new()
    };
    Some(Miner {
        chain: chain?,
        wallet: wallet?,
        hub: match hub {
            Some(hub) => Some(hub?),
            None => None,
        },
        eras,
    })
}

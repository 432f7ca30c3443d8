//! The sample miners: each commits its model with a signed extrinsic.

use super::progress::Display;
use super::world::World;
use super::{NETUID, VALIDATOR};
use crate::bittensor::BlockNumber;
use crate::chain::{Call, ChainClient, ChainSettings, HotkeyPair};
use crate::cmd::Failure;
use crate::demo::ladder::SampleModel;
use crate::incentive::{CompetitionId, RepoId, Template, submission};
use futures::future::try_join_all;
use std::time::Duration;

/// The competition that the sample models enter.
pub(super) const COMPETITION: &str = "d1";

/// A client of the dev chain.
pub(super) async fn client(world: &World) -> Result<ChainClient, Failure> {
    let settings = ChainSettings {
        endpoints: vec![world.chain.url()],
        genesis: Some(world.chain.genesis_hash()),
        request_timeout: Duration::from_secs(20),
        block_time: Duration::from_millis(500),
    };
    ChainClient::connect(&settings)
        .await
        .map_err(Failure::unavailable)
}

/// The validator's key on the dev chain.
pub(super) fn validator() -> Result<HotkeyPair, Failure> {
    HotkeyPair::from_uri(VALIDATOR).map_err(Failure::bug)
}

/// Commits every model that is not committed yet and returns the last commit block. The first goes
/// alone, so that its copy is later on chain whatever the order in a block.
pub(super) async fn commit_all(
    world: &World,
    models: &[SampleModel],
    display: &Display,
) -> Result<BlockNumber, Failure> {
    let chain = client(world).await?;
    let Some((first, rest)) = models.split_first() else {
        return Err(Failure::bug("there is no sample model"));
    };
    let mut last = commit(&chain, 1, first, display).await?;
    let others = rest
        .iter()
        .zip(2..)
        .map(|(model, n)| commit(&chain, n, model, display));
    for block in try_join_all(others).await? {
        last = last.max(block);
    }
    Ok(last)
}

async fn commit(
    chain: &ChainClient,
    number: usize,
    model: &SampleModel,
    display: &Display,
) -> Result<BlockNumber, Failure> {
    let pair = HotkeyPair::from_uri(&format!("//Miner{number}")).map_err(Failure::bug)?;
    let head = chain.finalised_head().await.map_err(Failure::unavailable)?;
    let known = chain
        .commitment(head, NETUID, &pair.hotkey())
        .await
        .map_err(Failure::unavailable)?;
    let text = text(number, model, &pair)?;
    if let Some(known) = known.filter(|known| known.text().is_ok_and(|kept| kept == text)) {
        return Ok(known.block);
    }
    let call = Call::SetCommitment {
        netuid: NETUID,
        text,
    };
    let inclusion = chain
        .submit(&pair, call)
        .await
        .map_err(Failure::unavailable)?;
    display.say(&format!(
        "//Miner{number} committed {} in block {}",
        model.repo, inclusion.block.number
    ));
    Ok(inclusion.block.number)
}

/// Both texts are in use on the subnet; the last miner still writes the origin's, without revision.
fn text(number: usize, model: &SampleModel, pair: &HotkeyPair) -> Result<String, Failure> {
    let repo: RepoId = model.repo.parse().map_err(Failure::bug)?;
    let competition: CompetitionId = COMPETITION.parse().map_err(Failure::bug)?;
    if number == 8 {
        return Ok(submission::format_origin(
            &repo,
            Template::ChatMl,
            &pair.hotkey(),
            &competition,
        ));
    }
    let revision = model.revision.parse().map_err(Failure::bug)?;
    submission::format(&repo, &revision, Template::ChatMl, &competition)
        .map_err(|length| Failure::bug(format_args!("a sample commitment has {length} bytes")))
}

//! `assay chain status`: the chain as the node sees it, at one finalised block.

mod report;

use super::run::{chain_settings, load_pair};
use super::{Failure, print_line};
use crate::bittensor::epoch::{WeightsWindow, rate_limit_wait, weights_window};
use crate::bittensor::{BlockNumber, Hotkey, Neuron, SubnetSnapshot, network_name};
use crate::chain::{ChainClient, ChainError};
use crate::cli::ChainStatus;
use crate::clock::now_ms;
use crate::config;
use report::{Member, Status, Window};

/// Epochs that are looked ahead for a window; a rate limit longer than that is none to wait for.
const EPOCHS_AHEAD: usize = 1000;

/// Reads everything at the finalised head and prints it.
///
/// # Errors
/// [`Failure`]: 64 for a wrong configuration, 69 when the chain or the hotkey file cannot be read.
pub async fn run(options: &ChainStatus) -> Result<(), Failure> {
    let config = config::load_miner(&options.config).map_err(Failure::usage)?;
    let hotkey = match options.hotkey {
        Some(hotkey) => hotkey,
        None => load_pair(&config.wallet)?.hotkey(),
    };
    let chain = &config.chain;
    let client = ChainClient::connect(&chain_settings(chain))
        .await
        .map_err(Failure::unavailable)?;
    let head = client.finalised_head().await;
    let head = head.map_err(Failure::unavailable)?;
    let unknown_shapes = match client.check_runtime(head).await {
        Ok(()) => Vec::new(),
        Err(ChainError::UnknownShape { misfits, .. }) => misfits,
        Err(error) => return Err(Failure::unavailable(error)),
    };
    let snapshot = client
        .mechanism_snapshot(chain.netuid, chain.mechanism, head)
        .await;
    let snapshot = snapshot.map_err(Failure::unavailable)?;
    let block_ms = u64::try_from(chain.block_time.as_millis()).unwrap_or(u64::MAX);
    let mut status = status(&snapshot, hotkey, now_ms(), block_ms);
    status.network = network_name(&client.genesis());
    status.genesis = client.genesis();
    client.endpoint().clone_into(&mut status.endpoint);
    status.unknown_shapes = unknown_shapes;
    if options.json {
        let text = serde_json::to_string(&status).map_err(Failure::bug)?;
        return print_line(text);
    }
    print_line(status.to_string().trim_end())
}

/// What a snapshot says about the subnet and one hotkey.
fn status(snapshot: &SubnetSnapshot, hotkey: Hotkey, now_ms: u64, block_ms: u64) -> Status {
    let parameters = &snapshot.hyperparameters;
    let neuron = snapshot.metagraph.by_hotkey(&hotkey);
    Status {
        network: None,
        genesis: snapshot.at.hash,
        endpoint: String::new(),
        spec_version: snapshot.spec_version,
        unknown_shapes: Vec::new(),
        head: snapshot.at,
        head_age_ms: now_ms.saturating_sub(snapshot.timestamp_ms),
        block_ms,
        netuid: snapshot.metagraph.netuid(),
        neurons: snapshot.metagraph.neurons().len(),
        commit_reveal_epochs: parameters
            .commit_reveal_weights_enabled
            .then_some(parameters.commit_reveal_period),
        tempo: parameters.tempo,
        next_epoch_block: snapshot.next_epoch_block,
        hotkey,
        member: neuron.map(|neuron| member(neuron, snapshot)),
    }
}

fn member(neuron: &Neuron, snapshot: &SubnetSnapshot) -> Member {
    let parameters = &snapshot.hyperparameters;
    let (at, limit) = (snapshot.at.number, parameters.weights_rate_limit);
    let free_from = at.plus(rate_limit_wait(neuron.last_update, limit, at));
    let is_owner = neuron.hotkey == snapshot.owner_hotkey;
    Member {
        uid: neuron.uid,
        registered_at: neuron.registered_at,
        active: neuron.active,
        is_owner,
        validator_permit: neuron.validator_permit,
        stake: neuron.total_stake,
        stake_threshold: parameters.stake_threshold,
        last_update: neuron.last_update,
        rate_limit: limit,
        free_from,
        window: next_window(snapshot, free_from.max(at)),
    }
}

/// The first window in which weights can be set, from `from` on. The epoch after the next is expected
/// one tempo later; the chain may defer it.
fn next_window(snapshot: &SubnetSnapshot, from: BlockNumber) -> Option<Window> {
    let tempo = snapshot.hyperparameters.tempo;
    let mut epoch = snapshot.next_epoch_block?;
    for _ in 0..EPOCHS_AHEAD {
        let window: WeightsWindow = weights_window(tempo, epoch)?;
        if from <= window.closes {
            return Some(Window {
                opens: window.opens.max(from),
                closes: window.closes,
                epoch,
            });
        }
        epoch = epoch.plus(tempo.0.into());
    }
    None
}

#[cfg(test)]
mod tests;

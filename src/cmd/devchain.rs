//! `assay devchain`: the embedded dev chain alone.

use crate::devchain::{DevChain, DevChainError, Genesis, Options, Sealing};
use std::io::Write;

pub use crate::cli::DevchainOptions;

/// Runs a dev chain until `stop` is ready. The first line on stdout is its `ws://` address.
///
/// # Errors
/// [`DevChainError`] when the chain cannot start.
pub async fn run(
    options: DevchainOptions,
    stop: impl Future<Output = ()>,
) -> Result<(), DevChainError> {
    let mut genesis = match &options.genesis {
        Some(path) => {
            let text =
                tokio::fs::read_to_string(path)
                    .await
                    .map_err(|source| DevChainError::Io {
                        what: format!("cannot read {}", path.display()),
                        source,
                    })?;
            Genesis::from_toml(&text)?
        }
        None => Genesis::dev(),
    };
    if let Some(block_time) = options.block_time {
        genesis.block_time = block_time;
    }
    let sealing = if options.manual {
        Sealing::Manual
    } else {
        Sealing::Interval
    };
    let options = Options {
        listen: options.listen,
        sealing,
        finality_lag: options.finality_lag,
        keep_states: options.keep_states,
        metadata: options.metadata,
        dir: options.dir,
    };
    let chain = DevChain::start(genesis, options).await?;
    announce(&chain.url()).map_err(|source| DevChainError::Io {
        what: "cannot write to stdout".to_owned(),
        source,
    })?;
    tracing::info!(url = %chain.url(), head = %chain.head().number, "dev chain is up");
    stop.await;
    Ok(())
}

fn announce(url: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{url}")?;
    out.flush()
}

//! `assay score-api`: serves scores, queue and weights, read-only.

use super::{Failure, serve_until_signal};
use crate::cli::ConfigFile;
use crate::config;
use crate::score_api;

/// Serves until SIGINT or SIGTERM. The store need not exist yet.
///
/// # Errors
/// [`Failure`]: 64 for a wrong configuration, 69 when the address cannot be had.
pub async fn run(options: &ConfigFile) -> Result<(), Failure> {
    let config = config::load_score_api(&options.config).map_err(Failure::usage)?;
    let app = score_api::router(config.store);
    serve_until_signal(config.listen, app, &config.limits, options.with_parent).await
}

//! `assay dataset-api`: serves sealed packs.

use super::{Failure, serve_until_signal};
use crate::cli::ConfigFile;
use crate::config;
use crate::dataset_api;

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// [`Failure`]: 64 for a wrong configuration, 69 when the address cannot be had.
pub async fn run(options: &ConfigFile) -> Result<(), Failure> {
    let config = config::load_dataset_api(&options.config).map_err(Failure::usage)?;
    let app = dataset_api::router(config.packs);
    serve_until_signal(config.listen, app, &config.limits, options.with_parent).await
}

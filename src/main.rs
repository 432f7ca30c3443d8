//! The `assay` binary: parse the command line, run the subcommand, map its result to an exit code.

use std::process::ExitCode;

use assay::cli::{Cli, Command};
use assay::cmd::{self, Failure};
use clap::Parser;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => return cmd::report_usage(&usage),
    };
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn start(cli: Cli) -> Result<(), Failure> {
    // Log lines would tear the demo's progress display; its children log into files anyway.
    let display = matches!(&cli.command, Command::Demo(demo) if !demo.plain);
    let filter = cli.log.as_deref().or(display.then_some("error"));
    assay::telemetry::install(cli.log_format, filter).map_err(Failure::usage)?;
    // Two providers are in the tree; without a choice the first TLS connection would make it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::bug)?;
    let result = runtime.block_on(cmd::dispatch(cli.command));
    // Blocking work that is still running (a name lookup, a file read) must not hold up the exit.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}

//! Composition roots, one per subcommand: they read the configuration, connect the parts, and own
//! the long-running tasks. Results go to standard output, everything else to the log.

pub mod chain_status;
pub mod check;
pub mod commit;
pub mod control;
pub mod corpus;
pub mod dataset;
pub mod dataset_api;
pub mod demo;
pub mod devchain;
mod lifetime;
pub mod run;
pub mod score_api;

use std::fmt::{self, Display};
use std::io::Write;
use std::process::ExitCode;

use tokio::net::TcpListener;

use crate::cli::{ChainCommand, Command};
use lifetime::Lifetime;

/// How a subcommand ended without success, as an exit code of sysexits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureCode {
    /// 64: the command line or the configuration is wrong.
    Usage,
    /// 69: a service or file that is needed is missing.
    Unavailable,
    /// 70: a bug of ours.
    Software,
}

impl FailureCode {
    /// The exit code.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::Software => 70,
        }
    }
}

/// A subcommand's failure: what the process says last, and its exit code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Which exit code.
    pub code: FailureCode,
    /// What happened and what to do next.
    pub message: String,
}

impl Failure {
    fn new(code: FailureCode, message: impl Display) -> Self {
        let message = message.to_string();
        Self { code, message }
    }

    /// The command line or the configuration is wrong (64).
    pub fn usage(message: impl Display) -> Self {
        Self::new(FailureCode::Usage, message)
    }

    /// Something that is needed is missing (69).
    pub fn unavailable(message: impl Display) -> Self {
        Self::new(FailureCode::Unavailable, message)
    }

    /// A bug of ours (70).
    pub fn bug(message: impl Display) -> Self {
        Self::new(FailureCode::Software, message)
    }

    /// Writes the message to standard error and gives the exit code.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        // Nothing is left to tell a closed standard error.
        let _ = writeln!(std::io::stderr(), "assay: {}", self.message);
        ExitCode::from(self.code.exit_code())
    }
}

/// Prints clap's answer. Help and version end with 0, usage errors with 64.
#[must_use]
pub fn report_usage(usage: &clap::Error) -> ExitCode {
    let _ = usage.print();
    if usage.use_stderr() {
        ExitCode::from(FailureCode::Usage.exit_code())
    } else {
        ExitCode::SUCCESS
    }
}

/// Runs one subcommand to its end.
///
/// # Errors
/// [`Failure`] with the exit code.
pub async fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(options) => run::run(&options).await,
        Command::DatasetApi(options) => dataset_api::run(&options).await,
        Command::ScoreApi(options) => score_api::run(&options).await,
        Command::Demo(options) => demo::run(options).await,
        Command::Check(options) => check::run(&options).await,
        Command::Commit(options) => commit::run(&options).await,
        Command::Chain(ChainCommand::Status(options)) => chain_status::run(&options).await,
        Command::Devchain(options) => run_devchain(options).await,
        Command::Control(command) => control::run(command).await,
        Command::Corpus(command) => corpus::run(command).await,
        Command::Dataset(command) => dataset::run(command).await,
    }
}

async fn run_devchain(options: devchain::DevchainOptions) -> Result<(), Failure> {
    let shutdown = crate::shutdown::Shutdown::new();
    let signals = shutdown.on_signals().map_err(Failure::bug)?;
    devchain::run(options, signals)
        .await
        .map_err(Failure::unavailable)
}

/// Serves `app` on `address` until the process is told to stop.
async fn serve_until_signal(
    address: std::net::SocketAddr,
    app: axum::Router,
    limits: &crate::config::Limits,
    with_parent: bool,
) -> Result<(), Failure> {
    let mut life = Lifetime::begin(with_parent)?;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| Failure::unavailable(format_args!("cannot listen on {address}: {e}")))?;
    // Port 0 asks for any free port; whoever started us reads here which one it became.
    let bound = listener.local_addr().map_err(Failure::bug)?;
    print_line(format_args!("listening on http://{bound}"))?;
    let shutdown = life.shutdown.clone();
    let limits = web_limits(limits);
    life.spawn("listener", async move {
        crate::web::serve(listener, app, &limits, &shutdown).await
    });
    life.run().await
}

fn web_limits(limits: &crate::config::Limits) -> crate::web::Limits {
    crate::web::Limits {
        connections: limits.connections,
        header_bytes_max: usize::try_from(limits.header_size_max.0).unwrap_or(usize::MAX),
        header_timeout: limits.header_timeout,
        request_timeout: limits.request_timeout,
        connection_timeout: limits.connection_timeout,
        drain_timeout: limits.drain_timeout,
    }
}

/// Prints one line of a result. A closed pipe ends the command like any other failed output.
fn print_line(line: impl fmt::Display) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|e| Failure::unavailable(format_args!("cannot write to standard output: {e}")))
}

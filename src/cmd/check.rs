//! `assay check`: is the configuration right, and is everything there that it needs?

mod probes;

use std::fmt::Display;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};

use super::{Failure, print_line};
use crate::cli::ConfigFile;
use crate::config;
use crate::telemetry::is_deceptive;

/// No probe takes longer than this.
const DEADLINE: Duration = Duration::from_secs(30);

/// How a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// One line of the report: what was looked at, what was found, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    level: Level,
    text: String,
}

impl Finding {
    fn ok(text: impl Display) -> Self {
        Self::new(Level::Ok, text)
    }

    fn warn(text: impl Display) -> Self {
        Self::new(Level::Warn, text)
    }

    fn fail(text: impl Display) -> Self {
        Self::new(Level::Fail, text)
    }

    fn new(level: Level, text: impl Display) -> Self {
        // Servers' answers are quoted in it: one line, nothing that drives the terminal.
        let shown = |c: char| if is_deceptive(c) { ' ' } else { c };
        let text = text.to_string().chars().take(400).map(shown).collect();
        Self { level, text }
    }
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// A probe of one thing, by name.
type Probe<'a> = (&'static str, BoxFuture<'a, Finding>);

/// Prints the effective configuration of every role in the file, then one line for each thing that
/// the roles need, all probed at the same time.
///
/// # Errors
/// [`Failure`]: 64 for a wrong configuration, 69 when something that is needed is missing.
pub async fn run(options: &ConfigFile) -> Result<(), Failure> {
    let roles = config::load_roles(&options.config).map_err(Failure::usage)?;
    let text = config::effective(&roles).map_err(Failure::bug)?;
    print_line(format_args!("# effective configuration\n{text}"))?;
    let mut probes: Vec<Probe<'_>> = Vec::new();
    if let Some(validator) = &roles.validator {
        probes.extend(probes::validator(validator));
    }
    if let Some(miner) = &roles.miner {
        probes.extend(probes::miner(miner));
    }
    if let Some(dataset_api) = &roles.dataset_api {
        probes.extend(probes::dataset_api(dataset_api));
    }
    if let Some(score_api) = &roles.score_api {
        probes.extend(probes::score_api(score_api));
    }
    print_line("# surroundings")?;
    let bounded = probes.into_iter().map(|(name, probe)| async move {
        let finding = tokio::time::timeout(DEADLINE, probe).await;
        let late = |_| Finding::fail("no answer within 30 s; is it running and reachable?");
        (name, finding.unwrap_or_else(late))
    });
    let mut missing = 0;
    for (name, finding) in join_all(bounded).await {
        missing += usize::from(finding.level == Level::Fail);
        let (level, text) = (finding.level.word(), finding.text);
        print_line(format_args!("{level:<5} {name:<12} {text}"))?;
    }
    if missing > 0 {
        let needed = "needed things are missing; the lines marked FAIL say what to do";
        return Err(Failure::unavailable(format_args!("{missing} {needed}")));
    }
    Ok(())
}

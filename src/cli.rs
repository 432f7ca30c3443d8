//! The command line: what may be asked for.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use url::Url;

use crate::bittensor::Hotkey;
use crate::dataset::{Day, ObjectDigest};
use crate::telemetry::LogFormat;

/// A Bittensor validator node for model-competition subnets.
#[derive(Debug, Parser)]
#[command(name = "assay", version, about, propagate_version = true)]
pub struct Cli {
    /// Form of the log on standard error.
    #[arg(long, value_enum, default_value = "plain", global = true)]
    pub log_format: LogFormat,
    /// What to log, such as "info,assay::chain=debug".
    #[arg(long, env = "ASSAY_LOG", global = true)]
    pub log: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One role or tool of the binary.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the validator: read commitments, score models, set weights.
    Run(ConfigFile),
    /// Serve the evaluation conversations.
    DatasetApi(ConfigFile),
    /// Serve scores, queue and weights, read-only.
    ScoreApi(ConfigFile),
    /// Run everything on an embedded dev chain with sample miners and models.
    Demo(Demo),
    /// Run the embedded dev chain alone.
    Devchain(DevchainOptions),
    /// Check a configuration and its surroundings; print the effective values.
    Check(ConfigFile),
    /// Commit a model on chain, for miners: checked by the validator's own rules first.
    Commit(CommitOptions),
    /// Look at the chain as the node sees it.
    #[command(subcommand)]
    Chain(ChainCommand),
    /// Make the control model that workers are tried out with.
    #[command(subcommand)]
    Control(ControlCommand),
    /// Import, seal and list evaluation conversations.
    #[command(subcommand)]
    Corpus(Corpus),
    /// Watch and steer a running Dataset API: who asks, who is closed off, who has tokens.
    Dataset(DatasetCommand),
}

/// Options of `assay commit`.
#[derive(Debug, Args)]
pub struct CommitOptions {
    /// Configuration file (TOML) with the sections chain and wallet, best also hub and era; a sample is
    /// configs/miner.toml.
    #[arg(long, env = "ASSAY_CONFIG")]
    pub config: PathBuf,
    /// Repository on the hub: namespace/name.
    #[arg(long, required_unless_present = "text")]
    pub repo: Option<String>,
    /// Its commit, 40 hex digits; the head that the hub names now, when absent.
    #[arg(long)]
    pub revision: Option<String>,
    /// Chat template that the model was trained on.
    #[arg(long, required_unless_present = "text")]
    pub template: Option<String>,
    /// Competition that it enters.
    #[arg(long, required_unless_present = "text")]
    pub competition: Option<String>,
    /// Commit this text as it is, in either of the two forms.
    #[arg(long, conflicts_with_all = ["repo", "revision", "template", "competition"])]
    pub text: Option<String>,
    /// Check and show everything, send nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Replace a commitment that is there already; its block moves.
    #[arg(long)]
    pub replace: bool,
    /// Do not look the model up at the hub.
    #[arg(long)]
    pub no_hub: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// What can be looked at.
#[derive(Debug, Subcommand)]
pub enum ChainCommand {
    /// Network, runtime, head, epoch, our neuron, and the next weights window.
    Status(ChainStatus),
}

/// Options of `assay chain status`.
#[derive(Debug, Args)]
pub struct ChainStatus {
    /// Configuration file (TOML) with the sections chain and wallet: a validator's or a miner's.
    #[arg(long, env = "ASSAY_CONFIG")]
    pub config: PathBuf,
    /// Look at this hotkey instead of the wallet's, which is then not opened.
    #[arg(long)]
    pub hotkey: Option<Hotkey>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// An order to a running Dataset API.
#[derive(Debug, Args)]
pub struct DatasetCommand {
    /// Its configuration file: names the operator's address and the state folder.
    #[arg(long, env = "ASSAY_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// Who gives the order, as the audit names him.
    #[arg(long, env = "USER", default_value = "operator", global = true)]
    pub actor: String,
    /// What to do.
    #[command(subcommand)]
    pub order: DatasetOrder,
}

/// What can be ordered. A target is written group:NAME, class:NAME, hotkey:ADDRESS,
/// coldkey:ADDRESS or prefix:NETWORK.
#[derive(Debug, Clone, Subcommand)]
pub enum DatasetOrder {
    /// Show who asks most, how full the lanes are, and which groups are abnormal.
    Top {
        /// Print once as JSON instead of a live view.
        #[arg(long)]
        once: bool,
    },
    /// Close a target off, at once.
    Block {
        /// Whom.
        target: String,
        /// For how long, such as 2h; for good when absent.
        #[arg(long = "for", value_parser = humantime::parse_duration)]
        life: Option<Duration>,
        /// Why, for the audit.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Open a target again.
    Unblock {
        /// Whom.
        target: String,
    },
    /// Give a target another budget than its class has.
    Limit {
        /// Whom.
        target: String,
        /// Heavy requests at once.
        #[arg(long, required_unless_present = "clear")]
        burst: Option<u32>,
        /// Heavy requests per hour.
        #[arg(long, required_unless_present = "clear")]
        per_hour: Option<u32>,
        /// Go back to the class's budget.
        #[arg(long, conflicts_with_all = ["burst", "per_hour"])]
        clear: bool,
    },
    /// List what is closed off and limited.
    Rules,
    /// Give out a token and print it, once.
    Token {
        /// scorer, validator, miner or coldkey.
        #[arg(long)]
        class: String,
        /// Group that it belongs to, as configured.
        #[arg(long, default_value = "none")]
        group: String,
        /// Whom it is for.
        #[arg(long)]
        note: String,
        /// How long it lives.
        #[arg(long, default_value = "90d", value_parser = humantime::parse_duration)]
        life: Duration,
    },
    /// End tokens: one by its id, or all of hotkey:…, coldkey:… or group:….
    Revoke {
        /// Which.
        which: String,
    },
}

/// The configuration to use.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// Configuration file (TOML); samples are in configs/.
    #[arg(long, env = "ASSAY_CONFIG")]
    pub config: PathBuf,
    /// Stop when standard input closes: for a parent that must not leave children behind.
    #[arg(long, hide = true)]
    pub with_parent: bool,
}

/// How the demo's scorer is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScorerChoice {
    /// A container when Docker answers, else a process.
    Auto,
    /// A container or nothing.
    Docker,
    /// A child process.
    Process,
}

/// Options of `assay demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// End after the first weights were read back.
    #[arg(long)]
    pub once: bool,
    /// Print one JSON object on standard output at the end.
    #[arg(long)]
    pub json: bool,
    /// Log lines instead of a progress display.
    #[arg(long)]
    pub plain: bool,
    /// Keep everything in this folder and carry on from what it holds; a temporary one otherwise.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// How models are run.
    #[arg(long, value_enum, default_value = "auto")]
    pub scorer: ScorerChoice,
    /// Seed of the sample models, miners and conversations.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Flags of `assay devchain`.
#[derive(Debug, Clone, Args)]
pub struct DevchainOptions {
    /// Genesis file; without it: subnet 11 with //OwnerHot, //Validator and //Miner1 to //Miner8.
    #[arg(long)]
    pub genesis: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one. The dev_* methods exist on loopback only.
    #[arg(long, default_value = "127.0.0.1:9944")]
    pub listen: SocketAddr,
    /// Time between blocks, such as 500ms; overrides the genesis file.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub block_time: Option<Duration>,
    /// Seal blocks only when dev_seal asks for them.
    #[arg(long)]
    pub manual: bool,
    /// Blocks from the head back to the finalised head.
    #[arg(long, default_value_t = 2)]
    pub finality_lag: u32,
    /// States kept behind the head.
    #[arg(long, default_value_t = 300)]
    pub keep_states: usize,
    /// Raw runtime metadata (V15 or V16) instead of the built-in one.
    #[arg(long)]
    pub metadata: Option<PathBuf>,
    /// Folder of the journal; without it the chain lives in memory only.
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

/// Tools for the control model.
#[derive(Debug, Subcommand)]
pub enum ControlCommand {
    /// Have every worker of a configuration answer with a model that is known to be good, and keep the
    /// answers as the ones to be reproduced. Prints the section control to configure.
    Record {
        /// The validator's configuration.
        #[arg(long, env = "ASSAY_CONFIG")]
        config: PathBuf,
        /// Folder with the model as a miner would publish it.
        #[arg(long)]
        model: PathBuf,
        /// Its chat template.
        #[arg(long, default_value = "chatml")]
        template: String,
        /// Where the control model goes.
        #[arg(long)]
        folder: PathBuf,
    },
}

/// Tools for evaluation conversations.
#[derive(Debug, Subcommand)]
pub enum Corpus {
    /// Add conversations from JSONL (plain, gzip, zstd) or Parquet; what is not taken is listed in
    /// a file with reasons. Killed and run again, it goes on where it was.
    Import(Import),
    /// Seal a stretch of days into an immutable, signed pack named by its digest.
    Seal(Seal),
    /// List sealed packs, newest first.
    List {
        /// Folder of sealed packs.
        #[arg(long)]
        packs: PathBuf,
    },
    /// Check packs from end to end: signature, every form, every conversation, the index.
    Verify {
        /// Folder of sealed packs.
        #[arg(long)]
        packs: PathBuf,
        /// Digests of the objects to check; all packs when none is given.
        digests: Vec<ObjectDigest>,
    },
    /// Write the conversations of a pack as JSONL to a new file or standard output.
    Export {
        /// Folder of sealed packs.
        #[arg(long)]
        packs: PathBuf,
        /// Digest of the pack.
        digest: ObjectDigest,
        /// File to make; standard output when absent.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Count conversations, messages and bytes by day.
    Stats {
        /// Corpus folder.
        #[arg(long)]
        corpus: PathBuf,
    },
    /// Fetch packs in all forms from other replicas, static hosts or buckets, by digest.
    Sync(SyncPacks),
    /// Follow the chain and build each round's item list into the folder of packs.
    Rounds(RoundLists),
}

/// Flags of `assay corpus import`.
#[derive(Debug, Args)]
pub struct Import {
    /// Corpus folder; made when absent.
    #[arg(long)]
    pub corpus: PathBuf,
    /// Conversations: {"system_prompt", "messages": [{"role", "content"}], "date"}.
    pub file: PathBuf,
    /// Day of conversations that carry none (YYYY-MM-DD).
    #[arg(long)]
    pub created: Option<Day>,
    /// Where to list what is not taken; rejects-FILE.jsonl in the corpus folder when absent.
    #[arg(long)]
    pub rejects: Option<PathBuf>,
    /// Records between two checkpoints.
    #[arg(long, default_value_t = 50_000)]
    pub checkpoint: u64,
}

/// Flags of `assay corpus seal`.
#[derive(Debug, Args)]
pub struct Seal {
    /// Corpus folder.
    #[arg(long)]
    pub corpus: PathBuf,
    /// Folder of sealed packs; made when absent.
    #[arg(long)]
    pub packs: PathBuf,
    /// The operator's hotkey file, which signs the manifest.
    #[arg(long)]
    pub hotkey_file: PathBuf,
    /// First day (YYYY-MM-DD); the corpus' first when absent.
    #[arg(long)]
    pub from: Option<Day>,
    /// Last day, inclusive; the corpus' last when absent.
    #[arg(long)]
    pub to: Option<Day>,
    /// One pack for each day instead of one for all. Killed and run again, days that were sealed
    /// give the same packs again.
    #[arg(long)]
    pub each_day: bool,
}

/// Flags of `assay corpus sync`.
#[derive(Debug, Args)]
pub struct SyncPacks {
    /// Folder of sealed packs to fill; made when absent.
    #[arg(long)]
    pub packs: PathBuf,
    /// Dataset APIs in order of preference, with the token in ASSAY_DATASET_TOKEN if they want one; s3://bucket/prefix for a bucket (AWS_* variables).
    #[arg(long, required = true)]
    pub from: Vec<Url>,
    /// The http(s) URLs are static hosts of a folder of packs, not Dataset APIs.
    #[arg(long)]
    pub static_host: bool,
    /// Hotkeys whose packs are taken; anybody's when none is given.
    #[arg(long = "operator")]
    pub operators: Vec<Hotkey>,
}

/// Flags of `assay corpus rounds`.
#[derive(Debug, Args)]
pub struct RoundLists {
    /// Configuration with the section chain and the eras.
    #[command(flatten)]
    pub config: ConfigFile,
    /// Folder of sealed packs, which receives the lists.
    #[arg(long)]
    pub packs: PathBuf,
    /// The operator's hotkey file, which signs the lists.
    #[arg(long)]
    pub hotkey_file: PathBuf,
    /// Items of the last 48 hours in a list.
    #[arg(long, default_value_t = 2048)]
    pub fresh: usize,
    /// Older items in a list.
    #[arg(long, default_value_t = 2048)]
    pub older: usize,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        super::Cli::command().debug_assert();
    }
}

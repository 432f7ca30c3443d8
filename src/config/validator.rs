//! The sections that `assay run` reads.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::Serialize;
use url::Url;

use super::reader::Section;
use super::value::{self, Bytes, EnvName, SecretError, duration_text, url_text, url_texts};
use crate::bittensor::{BlockHash, Hotkey, MechanismId, Netuid};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// `[chain]`: which subnet, and where to read it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chain {
    /// WebSocket endpoints, in order of preference.
    #[serde(serialize_with = "url_texts")]
    pub endpoints: Vec<Url>,
    /// Hash of block 0: an endpoint of another chain is refused.
    pub genesis: BlockHash,
    /// The subnet.
    pub netuid: Netuid,
    /// The incentive mechanism; 0 on most subnets.
    pub mechanism: MechanismId,
    /// Deadline of one request.
    #[serde(serialize_with = "duration_text")]
    pub request_timeout: Duration,
    /// The chain's block time, 12 s on finney: eight of them in silence count as a dead connection.
    #[serde(serialize_with = "duration_text")]
    pub block_time: Duration,
}

/// `[wallet]`: the key that signs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Wallet {
    /// Hotkey file, unencrypted JSON as the field's wallets write it.
    pub hotkey_file: PathBuf,
}

/// `[store]`: what must outlive the process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Store {
    /// The SQLite file.
    pub path: PathBuf,
    /// Folder for models, packs' drafts, job folders, replies and logs.
    pub artifacts: PathBuf,
    /// Free space that downloads leave untouched.
    pub keep_free: Bytes,
}

/// `[hub]`: the model host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hub {
    /// Base URL.
    #[serde(serialize_with = "url_text")]
    pub endpoint: Url,
    /// Variable that holds the access token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
    /// File that holds the access token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Deadline of one metadata request.
    #[serde(serialize_with = "duration_text")]
    pub request_timeout: Duration,
    /// Longest pause within a transfer.
    #[serde(serialize_with = "duration_text")]
    pub stall_timeout: Duration,
    /// Deadline of one model's download.
    #[serde(serialize_with = "duration_text")]
    pub download_timeout: Duration,
    /// Files fetched at the same time.
    pub parallel_files: u16,
}

impl Hub {
    /// The access token, read now; `None` when none is named.
    ///
    /// # Errors
    /// [`SecretError`] when the named variable or file does not give one.
    pub fn token(&self) -> Result<Option<SecretString>, SecretError> {
        value::secret(self.token_env.as_deref(), self.token_file.as_deref())
    }
}

/// `[dataset]`: where packs come from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Dataset {
    /// Dataset APIs, in order of preference.
    #[serde(serialize_with = "url_texts")]
    pub endpoints: Vec<Url>,
    /// Hotkeys whose packs are used; empty: whoever signed them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<Hotkey>,
    /// Folder that keeps verified packs.
    pub cache: PathBuf,
    /// Deadline of a listing.
    #[serde(serialize_with = "duration_text")]
    pub request_timeout: Duration,
    /// Deadline of one pack's download.
    #[serde(serialize_with = "duration_text")]
    pub download_timeout: Duration,
    /// Largest pack accepted, compressed.
    pub pack_size_max: Bytes,
}

/// `[weights]`: setting weights on chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Weights {
    /// False computes and logs the vector but never sends it.
    pub submit: bool,
    /// Version key sent with every vector; must reach the subnet's `WeightsVersionKey`.
    pub version_key: u64,
    /// Deadline from signing to finality.
    #[serde(serialize_with = "duration_text")]
    pub timeout: Duration,
}

/// `[metrics]`: the validator's only listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Metrics {
    /// Address for health and metrics; loopback by default.
    pub listen: SocketAddr,
}

pub(super) fn chain(mut s: Section<'_>) -> Option<Chain> {
    let endpoints: Option<Vec<Url>> = s.required("endpoints");
    for url in endpoints.iter().flatten() {
        if !["ws", "wss"].contains(&url.scheme()) {
            s.problem(
                "endpoints",
                format!("{url} must start with ws:// or wss://"),
            );
        }
    }
    let genesis = s.required("genesis");
    let netuid = s.required("netuid");
    let mechanism = s.within("mechanism", 0, 0..=15);
    let request_timeout = s.duration("request_timeout", Duration::from_secs(20), HOUR);
    let block_time = s.duration("block_time", Duration::from_secs(12), HOUR);
    s.finish();
    Some(Chain {
        endpoints: endpoints?,
        genesis: genesis?,
        netuid: Netuid(netuid?),
        mechanism: MechanismId(mechanism),
        request_timeout,
        block_time,
    })
}

pub(super) fn wallet(mut s: Section<'_>) -> Option<Wallet> {
    let hotkey_file = s.path_value("hotkey_file");
    s.finish();
    Some(Wallet {
        hotkey_file: hotkey_file?,
    })
}

pub(super) fn store(mut s: Section<'_>) -> Option<Store> {
    let path = s.path_value("path");
    let artifacts = s.path_value("artifacts");
    let keep_free = s.or("keep_free", Bytes::gib(20));
    s.finish();
    Some(Store {
        path: path?,
        artifacts: artifacts?,
        keep_free,
    })
}

/// An HTTP base URL; anything else is noted.
pub(super) fn http_url(s: &mut Section<'_>, key: &'static str) -> Option<Url> {
    let url: Url = s.required(key)?;
    check_http(s, key, &url);
    Some(url)
}

fn check_http(s: &Section<'_>, key: &str, url: &Url) {
    if !["http", "https"].contains(&url.scheme()) {
        s.problem(key, format!("{url} must start with http:// or https://"));
    }
}

/// The names under which a section refers to its secret: variable or file, not both.
pub(super) fn secret_names(
    s: &mut Section<'_>,
    env: &'static str,
    file: &'static str,
) -> (Option<String>, Option<PathBuf>) {
    let variable = s.optional::<EnvName>(env).map(|name| name.0);
    let path = s.optional_path(file);
    if variable.is_some() && path.is_some() {
        s.problem(file, format!("give {env} or {file}, not both"));
    }
    (variable, path)
}

pub(super) fn hub(mut s: Section<'_>) -> Option<Hub> {
    let endpoint = http_url(&mut s, "endpoint");
    let (token_env, token_file) = secret_names(&mut s, "token_env", "token_file");
    let request_timeout = s.duration("request_timeout", Duration::from_secs(30), HOUR);
    let stall_timeout = s.duration("stall_timeout", MINUTE, HOUR);
    let download_timeout = s.duration("download_timeout", 2 * HOUR, DAY);
    let parallel_files = s.within("parallel_files", 4, 1..=16);
    s.finish();
    Some(Hub {
        endpoint: endpoint?,
        token_env,
        token_file,
        request_timeout,
        stall_timeout,
        download_timeout,
        parallel_files,
    })
}

pub(super) fn dataset(mut s: Section<'_>) -> Option<Dataset> {
    let endpoints: Option<Vec<Url>> = s.required("endpoints");
    for url in endpoints.iter().flatten() {
        check_http(&s, "endpoints", url);
    }
    let operators = s.or("operators", Vec::new());
    let cache = s.path_value("cache");
    let request_timeout = s.duration("request_timeout", Duration::from_secs(20), HOUR);
    let download_timeout = s.duration("download_timeout", 30 * MINUTE, DAY);
    let pack_size_max = s.within(
        "pack_size_max",
        Bytes::gib(2),
        Bytes::mib(1)..=Bytes::gib(64),
    );
    s.finish();
    Some(Dataset {
        endpoints: endpoints?,
        operators,
        cache: cache?,
        request_timeout,
        download_timeout,
        pack_size_max,
    })
}

pub(super) fn weights(mut s: Section<'_>) -> Weights {
    let weights = Weights {
        submit: s.or("submit", true),
        version_key: s.or("version_key", 0),
        timeout: s.duration("timeout", 5 * MINUTE, HOUR),
    };
    s.finish();
    weights
}

pub(super) fn metrics(mut s: Section<'_>) -> Metrics {
    let listen = s.or("listen", SocketAddr::from(([127, 0, 0, 1], 9100)));
    s.finish();
    Metrics { listen }
}

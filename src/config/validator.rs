//! The sections that `assay run` reads.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::Serialize;
use url::Url;

use super::reader::Section;
use super::value::{
    self, BeaconKey, Bytes, EnvName, SecretError, duration_text, url_text, url_texts,
};
use crate::bittensor::reveal::Beacon;
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
    /// Those among the endpoints that are shared with others: asked at most once per second.
    #[serde(serialize_with = "url_texts", skip_serializing_if = "Vec::is_empty")]
    pub public_endpoints: Vec<Url>,
    /// Hash of block 0: an endpoint of another chain is refused.
    pub genesis: BlockHash,
    /// The subnet.
    pub netuid: Netuid,
    /// The incentive mechanism; 0 on most subnets.
    pub mechanism: MechanismId,
    /// Deadline of one request.
    #[serde(serialize_with = "duration_text")]
    pub request_timeout: Duration,
    /// The chain's block time, 12 s on finney: silence and pauses are measured in it.
    #[serde(serialize_with = "duration_text")]
    pub block_time: Duration,
    /// Public key of the beacon that timelocked weights are encrypted to; absent: drand's quicknet,
    /// which every real network uses. A dev chain has its own (`dev_beacon` tells).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beacon_public_key: Option<BeaconKey>,
    /// Time between the beacon's rounds; the first is quicknet's.
    #[serde(serialize_with = "duration_text")]
    pub beacon_period: Duration,
}

impl Chain {
    /// The beacon that the chain's reveals go by.
    #[must_use]
    pub fn beacon(&self) -> Beacon {
        let real = Beacon::quicknet();
        Beacon {
            public_key: self
                .beacon_public_key
                .as_ref()
                .map_or(real.public_key, |key| key.0),
            period_ms: u64::try_from(self.beacon_period.as_millis()).unwrap_or(u64::MAX),
            ..real
        }
    }
}

/// `[wallet]`: the key that signs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Wallet {
    /// Hotkey file as the field's wallets write it.
    pub hotkey_file: PathBuf,
    /// Variable that holds the password of an encrypted hotkey file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// File that holds the password of an encrypted hotkey file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

impl Wallet {
    /// The password of the hotkey file, read now; `None` when none is named.
    ///
    /// # Errors
    /// [`SecretError`] when the named variable or file does not give one.
    pub fn password(&self) -> Result<Option<SecretString>, SecretError> {
        value::secret(self.password_env.as_deref(), self.password_file.as_deref())
    }
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
    /// Models that lie fetched or are being fetched while scorers work on others.
    pub ahead: u16,
    /// Bytes per second of all downloads together; none: as fast as they come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bytes>,
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
    /// Static hosts (`https://…`) and buckets (`s3://bucket/prefix`) with the same packs, asked
    /// after the endpoints.
    #[serde(serialize_with = "url_texts", skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<Url>,
    /// Hotkeys whose packs are used; empty: whoever signed them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<Hotkey>,
    /// Folder that keeps verified packs.
    pub cache: PathBuf,
    /// Deadline of a listing.
    #[serde(serialize_with = "duration_text")]
    pub request_timeout: Duration,
    /// Variable that holds a token of the Dataset APIs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
    /// File that holds a token of the Dataset APIs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// How long an endpoint may be silent before the next one is asked as well.
    #[serde(serialize_with = "duration_text")]
    pub hedge_after: Duration,
    /// Mean pause between two looks for new packs.
    #[serde(serialize_with = "duration_text")]
    pub sync_interval: Duration,
    /// Deadline of one pack's download.
    #[serde(serialize_with = "duration_text")]
    pub download_timeout: Duration,
    /// Largest pack accepted, compressed.
    pub pack_size_max: Bytes,
}

impl Dataset {
    /// The token for the Dataset APIs, read now; `None` when none is named.
    ///
    /// # Errors
    /// [`SecretError`] when the named variable or file does not give one.
    pub fn token(&self) -> Result<Option<SecretString>, SecretError> {
        value::secret(self.token_env.as_deref(), self.token_file.as_deref())
    }
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
    /// How long the last good weights are sent again while scoring is down; then everything is burnt.
    #[serde(serialize_with = "duration_text")]
    pub last_good_for: Duration,
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
    let public_endpoints: Vec<Url> = s.optional("public_endpoints").unwrap_or_default();
    for url in &public_endpoints {
        if !endpoints.iter().flatten().any(|known| known == url) {
            s.problem("public_endpoints", format!("{url} is not among endpoints"));
        }
    }
    let genesis = s.required("genesis");
    let netuid = s.required("netuid");
    let mechanism = s.within("mechanism", 0, 0..=15);
    let request_timeout = s.duration("request_timeout", Duration::from_secs(20), HOUR);
    let block_time = s.duration("block_time", Duration::from_secs(12), HOUR);
    let beacon_public_key = s.optional("beacon_public_key");
    let beacon_period = s.duration("beacon_period", Duration::from_secs(3), HOUR);
    s.finish();
    Some(Chain {
        endpoints: endpoints?,
        public_endpoints,
        genesis: genesis?,
        netuid: Netuid(netuid?),
        mechanism: MechanismId(mechanism),
        request_timeout,
        block_time,
        beacon_public_key,
        beacon_period,
    })
}

pub(super) fn wallet(mut s: Section<'_>) -> Option<Wallet> {
    let hotkey_file = s.path_value("hotkey_file");
    let (password_env, password_file) = secret_names(&mut s, "password_env", "password_file");
    s.finish();
    Some(Wallet {
        hotkey_file: hotkey_file?,
        password_env,
        password_file,
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
    let ahead = s.within("ahead", 2, 1..=64);
    let bandwidth = s.optional::<Bytes>("bandwidth");
    if bandwidth == Some(Bytes(0)) {
        s.problem("bandwidth", "must be above 0; leave it out for no limit");
    }
    s.finish();
    Some(Hub {
        endpoint: endpoint?,
        token_env,
        token_file,
        request_timeout,
        stall_timeout,
        download_timeout,
        parallel_files,
        ahead,
        bandwidth,
    })
}

pub(super) fn dataset(mut s: Section<'_>) -> Option<Dataset> {
    let endpoints: Option<Vec<Url>> = s.required("endpoints");
    for url in endpoints.iter().flatten() {
        check_http(&s, "endpoints", url);
    }
    let (token_env, token_file) = secret_names(&mut s, "token_env", "token_file");
    let mirrors: Vec<Url> = s.or("mirrors", Vec::new());
    for url in mirrors.iter().filter(|url| url.scheme() != "s3") {
        check_http(&s, "mirrors", url);
    }
    let operators = s.or("operators", Vec::new());
    let cache = s.path_value("cache");
    let request_timeout = s.duration("request_timeout", Duration::from_secs(20), HOUR);
    let hedge_after = s.duration("hedge_after", Duration::from_secs(2), HOUR);
    let sync_interval = s.duration("sync_interval", 5 * MINUTE, DAY);
    let download_timeout = s.duration("download_timeout", 30 * MINUTE, DAY);
    let pack_size_max = s.within(
        "pack_size_max",
        Bytes::gib(2),
        Bytes::mib(1)..=Bytes::gib(64),
    );
    s.finish();
    Some(Dataset {
        endpoints: endpoints?,
        mirrors,
        operators,
        token_env,
        token_file,
        cache: cache?,
        request_timeout,
        hedge_after,
        sync_interval,
        download_timeout,
        pack_size_max,
    })
}

pub(super) fn weights(mut s: Section<'_>) -> Weights {
    let weights = Weights {
        submit: s.or("submit", true),
        version_key: s.or("version_key", 0),
        timeout: s.duration("timeout", 5 * MINUTE, HOUR),
        last_good_for: s.duration("last_good_for", 3 * DAY, 30 * DAY),
    };
    s.finish();
    weights
}

pub(super) fn metrics(mut s: Section<'_>) -> Metrics {
    let listen = s.or("listen", SocketAddr::from(([127, 0, 0, 1], 9100)));
    s.finish();
    Metrics { listen }
}

//! One probe for each thing that a role needs. None changes anything.

use std::net::SocketAddr;
use std::time::Duration;

use futures::FutureExt;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::Url;

use super::{Finding, Probe};
use crate::chain::{ChainClient, HotkeyPair, LooseMode};
use crate::cmd::run::dataset_settings;
use crate::config::{self, Bytes, DatasetApi, Miner, Runner, ScoreApi, Validator};
use crate::dataset::client::DatasetClient;
use crate::dataset::list_packs;
use crate::scoring::control::Control;
use crate::scoring::docker::Engine;
use crate::scoring::gpu::{self, Gate};
use crate::store::{Reader, StoreError};

/// Longest answer of a server that is read.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// What `assay run` needs.
pub(super) fn validator(config: &Validator) -> Vec<Probe<'_>> {
    let mut probes = vec![
        ("hotkey", async { hotkey(&config.wallet) }.boxed()),
        ("chain", chain(&config.chain, &config.wallet, true).boxed()),
        ("scorer", scorer(config).boxed()),
        ("gpus", async { gpus(config) }.boxed()),
        ("control", async { control(config) }.boxed()),
        ("disk", async { disk(&config.store) }.boxed()),
        ("hub", hub(&config.hub).boxed()),
        ("dataset", dataset(&config.dataset).boxed()),
        ("metrics", listen(config.metrics.listen).boxed()),
    ];
    for entry in &config.workers {
        probes.push(("worker", async { worker(config, entry) }.boxed()));
    }
    for provider in &config.judge.providers {
        let deadline = config.judge.request_timeout;
        probes.push(("judge", judge(provider, deadline).boxed()));
    }
    probes
}

/// What a miner's commands need.
pub(super) fn miner(config: &Miner) -> Vec<Probe<'_>> {
    let mut probes = vec![
        ("hotkey", async { hotkey(&config.wallet) }.boxed()),
        ("chain", chain(&config.chain, &config.wallet, false).boxed()),
    ];
    if let Some(found) = &config.hub {
        probes.push(("hub", hub(found).boxed()));
    }
    probes
}

/// What `assay dataset-api` needs.
pub(super) fn dataset_api(config: &DatasetApi) -> Vec<Probe<'_>> {
    let packs = async {
        match list_packs(&config.packs) {
            Ok(packs) if packs.is_empty() => Finding::warn(format_args!(
                "no pack in {}; make one with `assay corpus seal`",
                config.packs.display()
            )),
            Ok(packs) => Finding::ok(format_args!("{} packs", packs.len())),
            Err(error) => Finding::fail(error),
        }
    };
    let address = listen(config.listen);
    vec![("packs", packs.boxed()), ("dataset-api", address.boxed())]
}

/// What `assay score-api` needs.
pub(super) fn score_api(config: &ScoreApi) -> Vec<Probe<'_>> {
    let store = async {
        match Reader::open(&config.store) {
            Ok(_) => Finding::ok(format_args!("{} can be read", config.store.display())),
            Err(error @ StoreError::Missing(_)) => Finding::warn(format_args!(
                "{error}; until then the score API answers 503"
            )),
            Err(error) => Finding::fail(error),
        }
    };
    let address = listen(config.listen);
    vec![("store", store.boxed()), ("score-api", address.boxed())]
}

fn hotkey(wallet: &config::Wallet) -> Finding {
    match load(wallet) {
        Ok((pair, None)) => Finding::ok(pair.hotkey()),
        Ok((pair, Some(loose))) => Finding::warn(format_args!("{}: {loose}", pair.hotkey())),
        Err(reason) => Finding::fail(reason),
    }
}

fn load(wallet: &config::Wallet) -> Result<(HotkeyPair, Option<LooseMode>), String> {
    let password = wallet.password().map_err(|e| e.to_string())?;
    HotkeyPair::load(&wallet.hotkey_file, password.as_ref()).map_err(|e| e.to_string())
}

async fn chain(chain: &config::Chain, wallet: &config::Wallet, validates: bool) -> Finding {
    let settings = crate::cmd::run::chain_settings(chain);
    let client = match ChainClient::connect(&settings).await {
        Ok(client) => client,
        Err(error) => return Finding::fail(error),
    };
    let head = match client.finalised_head().await {
        Ok(head) => head,
        Err(error) => return Finding::fail(error),
    };
    if let Err(error) = client.check_runtime(head).await {
        return Finding::fail(error);
    }
    let endpoint = client.endpoint();
    let snapshot = match client.snapshot(chain.netuid, head).await {
        Ok(snapshot) => snapshot,
        Err(error) => return Finding::fail(format_args!("subnet {}: {error}", chain.netuid)),
    };
    let place = format!("{endpoint}, block {}, subnet {}", head.number, chain.netuid);
    let Ok((pair, _)) = load(wallet) else {
        return Finding::ok(place);
    };
    match snapshot.metagraph.by_hotkey(&pair.hotkey()) {
        None => Finding::fail(format_args!(
            "{place}: the hotkey is not registered there; register it first"
        )),
        Some(neuron) if !validates => Finding::ok(format_args!("{place}, uid {}", neuron.uid)),
        Some(neuron) if !neuron.validator_permit => Finding::warn(format_args!(
            "{place}: uid {} has no validator permit, so weights will be refused",
            neuron.uid
        )),
        Some(neuron) => Finding::ok(format_args!("{place}, uid {} with permit", neuron.uid)),
    }
}

async fn scorer(config: &Validator) -> Finding {
    // Checked to be there when the configuration was read.
    let Some(era) = config.eras.last() else {
        return Finding::fail("no era names an image");
    };
    let image = &era.scoring.image;
    match &config.scorer.runner {
        Runner::Docker => match docker(image).await {
            Ok(version) => Finding::ok(format_args!("Docker {version}, image {image}")),
            Err(reason) => Finding::fail(reason),
        },
        Runner::Process { program, .. } => match tokio::fs::read(program).await {
            Err(error) => Finding::fail(format_args!("{}: {error}", program.display())),
            Ok(bytes) => {
                let found = format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
                let shown = program.display();
                if found == *image {
                    Finding::warn(format_args!("{shown} runs without a seal; for trials only"))
                } else {
                    Finding::fail(format_args!(
                        "{shown} has {found}, but the last era names {image}"
                    ))
                }
            }
        },
    }
}

async fn docker(image: &str) -> Result<String, String> {
    let engine = Engine::connect().await.map_err(|e| e.to_string())?;
    let version = engine.version().await.map_err(|e| e.to_string())?;
    let pin = image.parse().map_err(|e| format!("image {image}: {e}"))?;
    engine.resolve(&pin).await.map_err(|e| e.to_string())?;
    Ok(version)
}

/// The GPUs of this host and what owns them.
fn gpus(config: &Validator) -> Finding {
    let needed = config.workers.iter().any(|worker| !worker.gpus.is_empty());
    let (gpus, driver) = match gpu::inventory() {
        Ok(found) => found,
        Err(fault) if needed => return Finding::fail(fault.message),
        Err(_) => return Finding::ok("no GPU driver here; every worker scores on CPU"),
    };
    let owner = |gpu: &gpu::Gpu| {
        let owns = |worker: &&config::Worker| worker.gpus.contains(&gpu.uuid);
        let owner = config.workers.iter().find(owns);
        owner.map_or("free", |worker| worker.name.as_str())
    };
    let line = |gpu: &gpu::Gpu| {
        let memory = Bytes(gpu.memory_bytes);
        format!("{} {} {memory} -> {}", gpu.uuid, gpu.name, owner(gpu))
    };
    let lines: Vec<_> = gpus.iter().map(line).collect();
    Finding::ok(format_args!("driver {driver}: {}", lines.join("; ")))
}

fn control(config: &Validator) -> Finding {
    let Some(control) = &config.control else {
        return Finding::warn(
            "no [control] model: workers are not tried out before they score; `assay control record` makes one",
        );
    };
    match Control::open(&control.folder, &control.sha256) {
        Ok(_) => Finding::ok(control.folder.display()),
        Err(error) => Finding::fail(error),
    }
}

/// The whole mapping of one worker: everything that follows from its name and its GPUs.
fn worker(config: &Validator, worker: &config::Worker) -> Finding {
    let whose = if worker.gpus.is_empty() {
        "CPU".to_owned()
    } else {
        worker.gpus.join(" + ")
    };
    let size = worker
        .model_size_max
        .map_or("any size".to_owned(), |s| format!("up to {s}"));
    let mapping = format!(
        "{}: {whose}; models of {size}; {} in {} sequences; jobs in {}",
        worker.name,
        worker.dtype,
        worker.sequences,
        config.store.artifacts.join("jobs").display()
    );
    match Gate::new(&worker.gpus).and_then(|gate| gate.look()) {
        Err(fault) => Finding::fail(format_args!("{mapping}: {}", fault.message)),
        Ok(looks) => match looks.iter().find_map(|look| gpu::before(look).err()) {
            Some(trouble) => Finding::warn(format_args!("{mapping}: {trouble}")),
            None => Finding::ok(mapping),
        },
    }
}

/// Free space where artifacts go: in the folder, or the nearest one above that exists.
fn disk(store: &config::Store) -> Finding {
    let Some(folder) = store.artifacts.ancestors().find(|folder| folder.is_dir()) else {
        return Finding::fail(format_args!(
            "{} has no folder above it",
            store.artifacts.display()
        ));
    };
    let stat = match rustix::fs::statvfs(folder) {
        Ok(stat) => stat,
        Err(error) => return Finding::fail(format_args!("{}: {error}", folder.display())),
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let whole = Bytes(free - free % Bytes::mib(1).0);
    let (shown, keep) = (folder.display(), store.keep_free);
    if free <= keep.0 {
        Finding::fail(format_args!(
            "{shown} has {whole} free and store.keep_free is {keep}: no model can be fetched"
        ))
    } else if rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_err() {
        Finding::fail(format_args!("{shown} cannot be written by this user"))
    } else {
        Finding::ok(format_args!(
            "{whole} free in {shown}, {keep} of it kept free"
        ))
    }
}

async fn hub(hub: &config::Hub) -> Finding {
    let token = match hub.token() {
        Ok(token) => token,
        Err(error) => return Finding::fail(error),
    };
    match ask(
        &hub.endpoint,
        "api/models?limit=1",
        token,
        hub.request_timeout,
    )
    .await
    {
        Err(reason) => Finding::fail(format_args!("{}: {reason}", hub.endpoint)),
        Ok((401 | 403, _)) => {
            Finding::fail(format_args!("{} refuses the token; renew it", hub.endpoint))
        }
        Ok((status @ 500.., _)) => Finding::fail(format_args!("{} answers {status}", hub.endpoint)),
        Ok(_) => Finding::ok(&hub.endpoint),
    }
}

async fn dataset(dataset: &config::Dataset) -> Finding {
    let settings = match dataset_settings(dataset) {
        Ok(settings) => settings,
        Err(error) => return Finding::fail(error),
    };
    let client = DatasetClient::new(settings);
    let listed = match client {
        Ok(client) => client.list().await,
        Err(error) => return Finding::fail(error),
    };
    let kept = list_packs(&dataset.cache).map_or(0, |packs| packs.len());
    match listed {
        Ok(packs) if !packs.is_empty() && dataset.operators.is_empty() => {
            Finding::warn(format_args!(
                "{} packs, but dataset.operators names nobody: anyone's would be used; \
                 the newest is signed by {}",
                packs.len(),
                packs[0].signer()
            ))
        }
        Ok(packs) if !packs.is_empty() => Finding::ok(format_args!(
            "{} packs, the newest up to {}",
            packs.len(),
            packs[0].to
        )),
        Ok(_) if kept == 0 => Finding::fail("the API offers no pack; seal one there"),
        Err(error) if kept == 0 => Finding::fail(error),
        Ok(_) => Finding::warn(format_args!("the API offers no pack; {kept} are on disk")),
        Err(error) => Finding::warn(format_args!("{kept} packs on disk, but {error}")),
    }
}

async fn judge(provider: &config::JudgeProvider, deadline: Duration) -> Finding {
    let key = match provider.key() {
        Ok(key) => key,
        Err(error) => return Finding::fail(error),
    };
    let (url, name) = (&provider.base_url, &provider.name);
    let model = provider.served_model.as_ref().unwrap_or(&provider.model);
    match ask(url, "models", key, deadline).await {
        Err(reason) => Finding::fail(format_args!("{name}: {url}: {reason}")),
        Ok((401 | 403, _)) => {
            Finding::fail(format_args!("{name}: {url} refuses the key; renew it"))
        }
        Ok((200, body)) => {
            let mut listed = body["data"].as_array().into_iter().flatten();
            if listed.any(|entry| entry["id"] == model.as_str()) {
                Finding::ok(format_args!("{name}: {url} has {model}"))
            } else {
                Finding::warn(format_args!("{name}: {url} does not list {model}"))
            }
        }
        Ok((status, _)) => Finding::warn(format_args!(
            "{name}: {url} answers {status} when asked for its models; {model} may still be there"
        )),
    }
}

async fn listen(address: SocketAddr) -> Finding {
    match tokio::net::TcpListener::bind(address).await {
        Ok(_) => Finding::ok(format_args!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Finding::warn(format_args!(
            "{address} is in use: by this role already, or by something else"
        )),
        Err(error) => Finding::fail(format_args!("cannot listen on {address}: {error}")),
    }
}

/// Status and, as far as it is JSON of a bounded length, body of a GET below `base`.
async fn ask(
    base: &Url,
    path: &str,
    token: Option<SecretString>,
    deadline: Duration,
) -> Result<(u16, Value), String> {
    let url = format!("{}/{path}", base.as_str().trim_end_matches('/'));
    let client = reqwest::Client::builder()
        .timeout(deadline)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|e| e.to_string())?;
    let mut request = client.get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token.expose_secret());
    }
    let mut response = request.send().await.map_err(|error| {
        let reason = if error.is_timeout() {
            "no answer in time"
        } else {
            "cannot be reached"
        };
        format!("{reason}; check the address and that it runs")
    })?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            break;
        }
    }
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}

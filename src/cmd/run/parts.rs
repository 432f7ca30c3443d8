//! Everything that the validator's loops share, connected and checked before any of them starts.

use super::workers::{self, Lane};
use crate::chain::{ChainClient, ChainSettings, Endpoint, HotkeyPair};
use crate::clock::now_ms;
use crate::cmd::Failure;
use crate::config::{self, Validator};
use crate::dataset::client::{ClientSettings, DatasetClient};
use crate::hub::{HubClient, HubSettings};
use crate::incentive::Era;
use crate::scoring::control::Control;
use crate::scoring::judge::pool::{Bounds, Patience};
use crate::scoring::judge::spend::{Meter, Prices, day_of};
use crate::scoring::judge::{Judge, PROMPT_VERSION, ProviderSettings};
use crate::service::Artifacts;
use crate::service::judging::Judges;
use crate::store::{EraRecord, RetryPolicy, Store};
use assay_protocol::Limits;
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

/// Name under which this host's containers are marked; the hotkey makes it unique.
pub(super) fn node_name(pair: &HotkeyPair) -> String {
    pair.hotkey().to_string()
}

/// The validator's parts.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) store: Store,
    pub(super) artifacts: Artifacts,
    pub(super) pair: HotkeyPair,
    pub(super) chain: ChainClient,
    pub(super) hub: HubClient,
    pub(super) dataset: DatasetClient,
    pub(super) judges: Judges,
    pub(super) lanes: Vec<Lane>,
    pub(super) control: Option<Control>,
    pub(super) limits: Limits,
}

impl Parts {
    /// Opens and connects everything; the first thing that is missing ends the start.
    pub(super) async fn connect(config: &Validator) -> Result<Self, Failure> {
        check_judge(config)?;
        let store = open_store(config).await?;
        let artifacts = Artifacts::open(&config.store.artifacts).map_err(Failure::unavailable)?;
        let pair = load_pair(&config.wallet)?;
        let control = workers::control(config)?;
        let lanes = workers::lanes(config, &artifacts, &pair).await?;
        let chain = ChainClient::connect(&chain_settings(&config.chain))
            .await
            .map_err(Failure::unavailable)?;
        let hub = HubClient::new(hub_settings(config)?).map_err(Failure::usage)?;
        let dataset =
            DatasetClient::new(dataset_settings(&config.dataset)?).map_err(Failure::unavailable)?;
        let judges = judges(config, &store).await?;
        Ok(Self {
            store,
            artifacts,
            pair,
            chain,
            hub,
            dataset,
            judges,
            lanes,
            control,
            limits: workers::limits(&config.scorer),
        })
    }
}

/// The newest era's judge must be among the providers, or nothing could be scored; an older era's
/// may have retired.
fn check_judge(config: &Validator) -> Result<(), Failure> {
    let Some(era) = config.eras.last() else {
        return Ok(());
    };
    let prompt = format!("assay-judge/{}", era.scoring.prompt_version);
    let named = |model: &String| config.judge.providers.iter().any(|p| p.model == *model);
    if let Some(second) = era
        .scoring
        .second_judge
        .as_ref()
        .filter(|model| !named(model))
    {
        return Err(Failure::usage(format_args!(
            "the era from block {} has {second} as its second judge, but no judge.provider offers that \
             model; add one",
            era.from_block
        )));
    }
    if !named(&era.scoring.judge) || prompt != PROMPT_VERSION {
        return Err(Failure::usage(format_args!(
            "the era from block {} is judged by {} with prompt {prompt}, but no judge.provider offers \
             that model, or this program's prompt, {PROMPT_VERSION}, is another; append an era or \
             add a provider",
            era.from_block, era.scoring.judge
        )));
    }
    Ok(())
}

async fn open_store(config: &Validator) -> Result<Store, Failure> {
    if let Some(folder) = config.store.path.parent() {
        std::fs::create_dir_all(folder).map_err(Failure::unavailable)?;
    }
    let store =
        Store::open(&config.store.path, RetryPolicy::default()).map_err(Failure::unavailable)?;
    let record = |era: &Era| EraRecord {
        era_id: era.id().to_string(),
        from_block: era.from_block,
        canonical: era.canonical_json(),
    };
    store
        .assert_eras(config.eras.iter().map(record).collect())
        .await
        .map_err(Failure::usage)?;
    Ok(store)
}

/// The key that signs; a loose file mode is warned about.
pub(in crate::cmd) fn load_pair(wallet: &config::Wallet) -> Result<HotkeyPair, Failure> {
    let password = wallet.password().map_err(Failure::usage)?;
    let path = &wallet.hotkey_file;
    let (pair, loose) = HotkeyPair::load(path, password.as_ref()).map_err(Failure::unavailable)?;
    if let Some(loose) = loose {
        tracing::warn!(mode = format!("{:o}", loose.mode), path = %path.display(), "others may read the hotkey; chmod 600 it");
    }
    Ok(pair)
}

pub(in crate::cmd) fn chain_settings(chain: &config::Chain) -> ChainSettings {
    let endpoint = |url: &url::Url| Endpoint {
        url: url.to_string(),
        public: chain.public_endpoints.contains(url),
    };
    ChainSettings {
        endpoints: chain.endpoints.iter().map(endpoint).collect(),
        genesis: Some(chain.genesis),
        request_timeout: chain.request_timeout,
        block_time: chain.block_time,
    }
}

fn hub_settings(config: &Validator) -> Result<HubSettings, Failure> {
    let hub = &config.hub;
    Ok(HubSettings {
        token: hub.token().map_err(Failure::usage)?,
        request_timeout: hub.request_timeout,
        stall_limit: hub.stall_timeout,
        download_deadline: hub.download_timeout,
        parallel_files: usize::from(hub.parallel_files),
        keep_free: config.store.keep_free.0,
        bandwidth: hub.bandwidth.and_then(|b| NonZeroU64::new(b.0)),
        ..HubSettings::new(hub.endpoint.clone())
    })
}

pub(in crate::cmd) fn dataset_settings(
    dataset: &config::Dataset,
) -> Result<ClientSettings, Failure> {
    Ok(ClientSettings {
        endpoints: dataset.endpoints.clone(),
        mirrors: dataset.mirrors.clone(),
        request_timeout: dataset.request_timeout,
        hedge_after: dataset.hedge_after,
        download_timeout: dataset.download_timeout,
        pack_bytes_max: dataset.pack_size_max.0,
        operators: dataset.operators.clone(),
        token: dataset.token().map_err(Failure::usage)?,
        ..ClientSettings::new(dataset.cache.clone())
    })
}

/// One judge for each model on offer, all under one daily limit.
async fn judges(config: &Validator, store: &Store) -> Result<Judges, Failure> {
    let judge = &config.judge;
    let day = day_of(now_ms());
    let spent = store.reader().judge_spent(day).await;
    let spent = spent.map_err(Failure::unavailable)?;
    let cap = judge.daily_spend_usd.map(micro_usd);
    let meter = Arc::new(Meter::new(cap, day, spent));
    let patience = Patience {
        in_flight: usize::from(judge.concurrency),
        total: judge.total_timeout,
        poor_answers: 3,
    };
    let mut by_model: BTreeMap<&str, Vec<ProviderSettings>> = BTreeMap::new();
    for provider in &judge.providers {
        let settings = provider_settings(provider, judge.request_timeout)?;
        by_model.entry(&provider.model).or_default().push(settings);
    }
    let made = by_model.into_iter().map(|(model, providers)| {
        let judge = Judge::new(model, &providers, patience, Arc::clone(&meter));
        judge.map(|judge| (model.to_owned(), Arc::new(judge)))
    });
    let by_model = made.collect::<Result<_, _>>().map_err(Failure::usage)?;
    Ok(Judges { by_model, meter })
}

fn provider_settings(
    provider: &config::JudgeProvider,
    call_deadline: Duration,
) -> Result<ProviderSettings, Failure> {
    let served = provider.served_model.as_ref().unwrap_or(&provider.model);
    Ok(ProviderSettings {
        base_url: provider.base_url.clone(),
        model: served.clone(),
        key: provider.key().map_err(Failure::usage)?,
        call_deadline,
        bounds: Bounds {
            name: provider.name.clone(),
            requests_per_minute: provider.requests_per_minute,
            tokens_per_minute: provider.tokens_per_minute,
            prices: Prices {
                usd_per_million_input: provider.usd_per_million_input,
                usd_per_million_output: provider.usd_per_million_output,
            },
        },
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to lie above 0 and up to a million"
)]
fn micro_usd(usd: f64) -> u64 {
    (usd * 1e6) as u64
}

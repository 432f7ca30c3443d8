//! One run: a dev chain, two proxies, a node that may be killed, and an observer who sees the chain as
//! it is.

use crate::chain::wire::{NETUID, pair};
use crate::harness::chaos::{ChaosProxy, MESSAGE_TROUBLES, Trouble, Weather};
use assay::bittensor::{
    BlockHash, BlockNumber, BlockRef, Hotkey, MechanismId, RoundNumber, SubnetSnapshot, Uid,
};
use assay::chain::{ChainClient, ChainSettings, Endpoint};
use assay::devchain::{DevChain, Genesis, Options, Sealing};
use assay::incentive::Era;
use assay::incentive::era::{RankingRule, RunnersUp};
use assay::incentive::ranking::{Contender, Evidence, rank};
use assay::incentive::score::ItemScores;
use assay::incentive::weights::{WeightVector, allocate};
use assay::service::Watcher;
use assay::service::weight_setter::WeightSetter;
use assay::shutdown::Shutdown;
use assay::store::{
    Admission, Advance, Ask, EraRecord, ModelFacts, NewScore, NewSubmission, Outcome, RetryPolicy,
    Round, ScoreInputs, Stage, Store, WeightState, WorkerId,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument as _;

/// Twelve seconds of a real chain.
const BLOCK: Duration = Duration::from_millis(200);
/// Tempo of the simulated subnet; its epochs are one block longer (spec 365).
const TEMPO: u64 = 29;
/// A block that came this much late tells of a starved host: the run's promises of that epoch are off.
const LATE: Duration = Duration::from_millis(50);
/// The healthy third, ten of 30 blocks, counted as blocks of the head before the epoch: it lies in the
/// weights window as a node sees it that reads two blocks behind. A real third is twelve times as many
/// blocks: who waits out a silence or a rest here has little time left.
const HEALTHY: std::ops::RangeInclusive<u64> = 5..=14;

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) blocks: u64,
    pub(super) rows: u64,
    pub(super) weighted: u64,
    pub(super) promised: u64,
    pub(super) starved: u64,
    pub(super) reorgs: u64,
    pub(super) kills: u64,
    pub(super) troubles: BTreeMap<Trouble, u32>,
}

impl Report {
    pub(super) fn add(&mut self, other: &Self) {
        self.blocks += other.blocks;
        self.rows += other.rows;
        self.weighted += other.weighted;
        self.promised += other.promised;
        self.starved += other.starved;
        self.reorgs += other.reorgs;
        self.kills += other.kills;
        for (trouble, n) in &other.troubles {
            *self.troubles.entry(*trouble).or_default() += n;
        }
    }
}

fn era() -> Era {
    let text = include_str!("../../../configs/demo.toml");
    let config: toml::Table = text.parse().unwrap();
    let mut era: Era = config["era"].as_array().unwrap()[0]
        .clone()
        .try_into()
        .unwrap();
    era.incentive.burn_share = 0.2;
    if let RankingRule::Champion(rule) = &mut era.incentive.ranking {
        rule.shares = vec![0.6, 0.3, 0.1];
        rule.runners_up = RunnersUp::Score;
    }
    era
}

fn items(value: f64) -> Vec<(String, f64)> {
    (0..64).map(|i| (format!("{i:064x}"), value)).collect()
}

/// Three miners with their scores.
fn contenders() -> [(Hotkey, f64); 3] {
    [("//Miner1", 0.9), ("//Miner2", 0.6), ("//Miner3", 0.3)]
        .map(|(uri, v)| (pair(uri).hotkey(), v))
}

async fn take(store: &Store, stage: Stage, outcome: Outcome) {
    let ask = Ask {
        stage,
        worker: WorkerId("w".into()),
        committed_before: None,
        model_bytes_max: None,
        now_ms: 10,
        ttl: Duration::from_secs(600),
    };
    let lease = store.lease(ask).await.unwrap().unwrap();
    store.finish_stage(&lease, outcome, 10).await.unwrap();
}

async fn record_model(store: &Store, n: u8, hotkey: Hotkey) {
    let hex = format!("{n:02x}").repeat(32);
    let repo = format!("org/model-{n}");
    let new = NewSubmission {
        hotkey,
        commit_block: BlockNumber(0),
        registered_at: Some(BlockNumber(0)),
        raw: format!("2:{repo}:{}:chatml:d1", &hex[..40]).into_bytes(),
        model: Some(ModelFacts {
            repo,
            revision: Some(hex[..40].to_owned()),
            template: "chatml".into(),
            competition: "d1".into(),
            weights_key: Some(hex),
        }),
        admission: Admission::Queued,
    };
    store.record(new, 1).await.unwrap();
}

/// A store in which the three are scored.
async fn store(dir: &std::path::Path, era: &Era) -> Store {
    let store = Store::open(&dir.join("node.db"), RetryPolicy::default()).unwrap();
    let (era_id, hex) = (era.id().to_string(), |byte: u8| {
        format!("{byte:02x}").repeat(32)
    });
    let record = EraRecord {
        era_id: era_id.clone(),
        from_block: BlockNumber(0),
        canonical: era.canonical_json(),
    };
    store.assert_eras(vec![record]).await.unwrap();
    let round = Round {
        era_id: era_id.clone(),
        number: RoundNumber(3),
        start: BlockRef {
            number: BlockNumber(0),
            hash: BlockHash([1; 32]),
        },
        start_ms: 1,
        seed: [1; 32],
        packs: vec![format!("sha256:{}", hex(1))],
        pack_digest: format!("sha256:{}", hex(1)),
        items_digest: hex(2),
        items: items(0.0).into_iter().map(|(id, _)| id).collect(),
    };
    store.put_round(round, 1).await.unwrap();
    for (n, (hotkey, value)) in (1u8..).zip(contenders()) {
        record_model(&store, n, hotkey).await;
        let fetched = Advance {
            tensor_digest: Some(format!("sha256:{}", hex(3))),
            ..Advance::default()
        };
        take(&store, Stage::Fetch, Outcome::Advance(fetched)).await;
        take(&store, Stage::Score, Outcome::Advance(Advance::default())).await;
        let score = NewScore {
            era_id: era_id.clone(),
            round: RoundNumber(3),
            value,
            standard_error: 0.02,
            gates: serde_json::json!({}),
            inputs: ScoreInputs {
                image_id: format!("sha256:{}", hex(4)),
                runner: "docker".into(),
                engine: "candle".into(),
                pack_digest: format!("sha256:{}", hex(1)),
                seed: hex(1),
                judge_id: "j".into(),
                prompt_version: "1".into(),
                tensor_digest: format!("sha256:{}", hex(3)),
                replies_digest: hex(5),
            },
            items: items(value)
                .into_iter()
                .map(|(id, v)| (id, v.into()))
                .collect(),
        };
        take(&store, Stage::Judge, Outcome::Scored(Box::new(score))).await;
    }
    store
}

/// The one right vector, by the rules alone.
fn expected(snapshot: &SubnetSnapshot, era: &Era) -> WeightVector {
    let contenders = contenders().map(|(hotkey, value)| Contender {
        hotkey,
        commit_block: BlockNumber(0),
        since: BlockNumber(0),
        evidence: vec![Evidence {
            round: RoundNumber(3),
            items: ItemScores::new(items(value)).unwrap(),
        }],
        near: Vec::new(),
        held: None,
    });
    let ranking = rank(&contenders, era, snapshot.at.number);
    allocate(&ranking, snapshot, era).unwrap()
}

/// The node's two loops, as `assay run` starts them. Dropping it kills them where they stand.
struct Node(JoinSet<()>);

impl Node {
    fn start(settings: &ChainSettings, store: &Store, era: &Era) -> Self {
        let mut tasks = JoinSet::new();
        let (settings, store, era) = (settings.clone(), store.clone(), era.clone());
        let life = async move {
            // As a supervisor restarts the process until it comes up.
            let chain = loop {
                match ChainClient::connect(&settings).await {
                    Ok(chain) => break chain,
                    Err(_) => tokio::time::sleep(BLOCK / 4).await,
                }
            };
            let (sender, latest) = watch::channel(None);
            let watcher = Watcher {
                chain: chain.clone(),
                netuid: NETUID,
                mechanism: MechanismId(0),
                store: store.clone(),
                latest: sender,
            };
            let setter = WeightSetter {
                beacon: assay::bittensor::reveal::Beacon::quicknet(),
                block_ms: 12_000,
                store,
                chain,
                pair: pair("//Validator"),
                version_key: 0,
                eras: vec![era],
                last_good_blocks: u64::MAX,
                latest,
            };
            let stop = Shutdown::new();
            // A first read that fails for good ends the process; it is started again.
            let (_, set) = tokio::join!(watcher.run(stop.clone()), setter.run(stop.clone()));
            set.unwrap();
        };
        tasks.spawn(life.in_current_span());
        Self(tasks)
    }

    fn ended(&mut self) -> bool {
        self.0.try_join_next().is_some()
    }
}

/// Blocks until the epoch fires, counted from the head; spec 365 fires by the modulo formula.
fn left(head: BlockNumber) -> u64 {
    TEMPO - (head.0 + u64::from(NETUID.0) + 1) % (TEMPO + 1)
}

struct Run {
    chain: DevChain,
    proxies: [ChaosProxy; 2],
    settings: ChainSettings,
    observer: ChainClient,
    rng: StdRng,
    report: Report,
    want: WeightVector,
}

/// What an epoch brings.
struct Plan {
    healthy: bool,
    storm: Weather,
    kill_at: Option<u64>,
}

impl Run {
    async fn new(seed: u64, era: &Era) -> Self {
        let mut genesis = Genesis::dev();
        genesis.block_time = BLOCK;
        genesis.subnets[0].weights_rate_limit = 0;
        genesis.subnets[0].tempo = u16::try_from(TEMPO).unwrap();
        let options = Options {
            sealing: Sealing::Manual,
            // More than a call lives; real nodes keep 256.
            keep_states: 80,
            ..Options::default()
        };
        let chain = DevChain::start(genesis, options).await.unwrap();
        while chain.head().number.0 < 4 || left(chain.head().number) < TEMPO {
            chain.seal().unwrap();
        }
        let proxies = [
            ChaosProxy::start(&chain.url(), seed).await,
            ChaosProxy::start(&chain.url(), seed ^ 0xffff).await,
        ];
        let settings = ChainSettings {
            endpoints: proxies
                .iter()
                .map(|p| Endpoint::own(p.url.clone()))
                .collect(),
            genesis: Some(chain.genesis_hash()),
            request_timeout: BLOCK * 4,
            block_time: BLOCK,
        };
        let direct = ChainSettings {
            endpoints: vec![Endpoint::own(chain.url())],
            request_timeout: Duration::from_secs(60),
            block_time: Duration::from_secs(60),
            ..settings.clone()
        };
        let observer = ChainClient::connect(&direct).await.unwrap();
        let snapshot = observer.snapshot(NETUID, chain.finalized()).await.unwrap();
        Self {
            chain,
            proxies,
            settings,
            observer,
            rng: StdRng::seed_from_u64(seed),
            report: Report::default(),
            want: expected(&snapshot, era),
        }
    }

    fn plan(&mut self) -> Plan {
        let kinds = self.rng.random_range(1..=MESSAGE_TROUBLES.len());
        let troubles = MESSAGE_TROUBLES.choose_multiple(&mut self.rng, kinds);
        let healthy = self.rng.random_bool(0.7);
        let kill = self.rng.random_range(0..=TEMPO);
        // A third in which the node is killed is no healthy one.
        let kills = self.rng.random_bool(0.3) && !(healthy && HEALTHY.contains(&kill));
        Plan {
            healthy,
            storm: Weather {
                rate: *[0.02, 0.1, 0.3, 0.7].choose(&mut self.rng).unwrap(),
                troubles: troubles.copied().collect(),
                pause: BLOCK * self.rng.random_range(1..=2),
            },
            kill_at: kills.then_some(kill),
        }
    }

    fn weather(&self, plan: &Plan, left: u64) {
        let calm = plan.healthy && HEALTHY.contains(&left);
        for proxy in &self.proxies {
            proxy.set(if calm {
                Weather::calm()
            } else {
                plan.storm.clone()
            });
        }
    }

    /// The row on chain is the right one or, before the first, empty.
    async fn check_row(&mut self) -> Result<(), String> {
        let at = self.chain.finalized();
        let row = self
            .observer
            .weights_row(at, NETUID, MechanismId(0), Uid(1));
        let row = row
            .await
            .map_err(|e| format!("the observer cannot read: {e}"))?;
        self.report.rows += 1;
        let first = row.is_empty() && self.report.weighted == 0;
        if first || self.want.matches(&row) {
            return Ok(());
        }
        Err(format!(
            "block {}: row {row:?}, want {:?}",
            at.number,
            self.want.entries()
        ))
    }

    async fn last_update(&self) -> BlockNumber {
        let at = self.chain.finalized();
        let snapshot = self.observer.snapshot(NETUID, at).await.unwrap();
        let validator = snapshot.metagraph.by_hotkey(&pair("//Validator").hotkey());
        validator.unwrap().last_update
    }

    /// One epoch, from the block after the last one fired to two blocks after its own.
    async fn epoch(&mut self, node: &mut Node, store: &Store, era: &Era) -> Result<(), String> {
        let plan = self.plan();
        let mut starved = false;
        let began = self.chain.head().number;
        let mut sealed = Instant::now();
        loop {
            tokio::time::sleep_until((sealed + BLOCK).into()).await;
            starved |= sealed.elapsed() > BLOCK + LATE;
            sealed = Instant::now();
            let next = left(self.chain.head().number);
            tracing::debug!(head = %self.chain.head().number, left = next, plan.healthy, "block");
            self.weather(&plan, next);
            if plan.kill_at == Some(next) || node.ended() {
                *node = Node::start(&self.settings, store, era);
                self.report.kills += 1;
            }
            if self.rng.random_bool(0.05) {
                self.chain.reorganise(2).unwrap();
                self.report.reorgs += 1;
            }
            self.chain.seal().unwrap();
            self.report.blocks += 1;
            self.check_row().await?;
            if next == 0 {
                break;
            }
        }
        let set = self.last_update().await >= began;
        self.report.weighted += u64::from(set);
        match (plan.healthy, starved) {
            (false, _) => Ok(()),
            (true, true) => {
                self.report.starved += 1;
                Ok(())
            }
            (true, false) => {
                self.report.promised += 1;
                let log = store.reader().weight_log(None, 1).await.unwrap();
                set.then_some(()).ok_or_else(|| {
                    format!(
                        "blocks {began} on: no weights; {:?}; log {log:#?}",
                        plan.storm
                    )
                })
            }
        }
    }
}

/// Runs one seed.
pub(super) async fn run(seed: u64, epochs: u64) -> Result<Report, String> {
    let era = era();
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), &era).await;
    let mut run = Run::new(seed, &era).await;
    let mut node = Node::start(&run.settings, &store, &era);
    for _ in 0..epochs {
        run.epoch(&mut node, &store, &era).await?;
    }
    drop(node);
    let log = store.reader().weight_log(None, 100).await.unwrap();
    for entry in &log {
        let vector = WeightVector::new(entry.weights.clone()).unwrap();
        if vector != run.want {
            return Err(format!("decided on another vector: {entry:#?}"));
        }
    }
    let back = log
        .iter()
        .filter(|e| matches!(e.state, WeightState::ReadBack { .. }));
    if run.report.promised > 2 && back.count() == 0 {
        return Err("nothing was ever read back".to_owned());
    }
    for proxy in &run.proxies {
        for (trouble, n) in proxy.happened() {
            *run.report.troubles.entry(trouble).or_default() += n;
        }
    }
    Ok(run.report)
}

//! The client against any subtensor node: `ASSAY_CHAIN=ws://… cargo test --test it chain -- --ignored`.
//!
//! `ASSAY_NETUID` names the subnet (1 when absent). `ASSAY_HOTKEY`, a dev URI such as `//Alice` or a
//! hotkey file, allows the checks that write: a commitment and a row of weights, on test networks only.
//! The same checks run against the dev chain in every test run, so they cannot rot.

use super::wire::{genesis, soon};
use assay::bittensor::{BlockRef, MechanismId, Netuid, SubnetSnapshot, Uid, network_name};
use assay::chain::{Call, ChainClient, ChainSettings, Endpoint, HotkeyPair, SubmitError, timelock};
use assay::devchain::{DevChain, Options};
use assay::incentive::WeightVector;
use assay::incentive::weights::preflight;
use std::time::Duration;

struct Live {
    client: ChainClient,
    netuid: Netuid,
}

impl Live {
    async fn connect(url: String, netuid: Netuid) -> Self {
        let settings = ChainSettings {
            endpoints: vec![Endpoint {
                // Gateways want no more than a request per second; a node of one's own does not mind.
                public: url.starts_with("wss://"),
                url,
            }],
            genesis: None,
            request_timeout: Duration::from_secs(60),
            block_time: Duration::from_secs(12),
        };
        let client = ChainClient::connect(&settings).await.unwrap();
        Self { client, netuid }
    }

    /// From the environment; says what is missing.
    async fn of_environment() -> Option<Self> {
        let Ok(url) = std::env::var("ASSAY_CHAIN") else {
            eprintln!("SKIPPED: ASSAY_CHAIN names no node, such as ws://127.0.0.1:9944");
            return None;
        };
        let netuid = std::env::var("ASSAY_NETUID").map_or(1, |n| n.parse().unwrap());
        Some(Self::connect(url, Netuid(netuid)).await)
    }

    async fn head(&self) -> BlockRef {
        self.client.finalised_head().await.unwrap()
    }

    async fn snapshot(&self, at: BlockRef) -> SubnetSnapshot {
        self.client.snapshot(self.netuid, at).await.unwrap()
    }

    /// Everything that is read, at one block, and the next blocks.
    async fn reads(&self) {
        let at = self.head().await;
        self.client.check_runtime(at).await.unwrap();
        let before = self.client.usage();
        let snapshot = self.snapshot(at).await;
        let after = self.client.usage();
        let (neurons, hyper) = (snapshot.metagraph.neurons(), &snapshot.hyperparameters);
        eprintln!(
            "{} ({:?}), spec {}, block {}: subnet {} has {} neurons, {} commitments, tempo {}, next epoch {:?}; {} requests, {} bytes",
            self.client.endpoint(),
            network_name(&self.client.genesis()),
            snapshot.spec_version,
            at.number,
            self.netuid,
            neurons.len(),
            snapshot.commitments.len(),
            hyper.tempo,
            snapshot.next_epoch_block,
            after.requests - before.requests,
            after.received_bytes - before.received_bytes
        );
        assert_eq!(snapshot.at, at);
        assert_eq!(
            self.client.block_hash(at.number).await.unwrap(),
            Some(at.hash)
        );
        let state = self.client.epoch_state(at, self.netuid).await.unwrap();
        assert_eq!(state.block, at.number);
        if let Some(next) = snapshot.next_epoch_block {
            assert!(next.plus(1) > at.number, "{next}");
            let period = hyper.commit_reveal_period;
            assert!(state.reveal_block(period).unwrap() > at.number);
        }
        for kept in snapshot.commitments.iter().take(3) {
            let alone = self.client.commitment(at, self.netuid, &kept.hotkey).await;
            assert_eq!(alone.unwrap().as_ref(), Some(kept));
        }
        for me in neurons.iter().filter(|n| n.validator_permit).take(3) {
            let row = self
                .client
                .weights_row(at, self.netuid, MechanismId(0), me.uid);
            let row = row.await.unwrap();
            assert!(
                row.iter()
                    .all(|(uid, _)| usize::from(uid.0) < neurons.len())
            );
        }
        if let Some(any) = neurons.first() {
            let terms = self
                .client
                .commitment_terms(at, self.netuid, &any.hotkey)
                .await;
            assert!(terms.unwrap().space_max > 0);
        }
        let mut blocks = self.client.follow();
        let first = soon(blocks.next()).await.unwrap().block;
        let second = soon(blocks.next()).await.unwrap().block;
        assert!(second.number > first.number && first.number >= at.number);
    }

    /// One commitment and one row of weights, read back. What the client's own check refuses is not
    /// sent, and that is said.
    async fn writes(&self, pair: &HotkeyPair) {
        let name = network_name(&self.client.genesis());
        if name == Some("finney") {
            eprintln!("SKIPPED: nothing is written to finney by a test");
            return;
        }
        self.commits(pair).await;
        let snapshot = self.snapshot(self.head().await).await;
        let owner = snapshot.metagraph.by_hotkey(&snapshot.owner_hotkey);
        let target = owner.map_or(Uid(0), |owner| owner.uid);
        let vector = WeightVector::new(vec![(target, 1)]).unwrap();
        let version = snapshot.hyperparameters.weights_version;
        if let Err(error) = preflight(&vector, &snapshot, &pair.hotkey(), version) {
            eprintln!("SKIPPED: weights would be refused: {error}");
            return;
        }
        if snapshot.hyperparameters.commit_reveal_weights_enabled {
            self.commits_weights(pair, &snapshot, &vector, version)
                .await;
        } else {
            self.sets_weights(pair, &snapshot, &vector, version).await;
        }
    }

    async fn commits(&self, pair: &HotkeyPair) {
        let text = format!("assay live check {}", self.head().await.number);
        let call = Call::SetCommitment {
            netuid: self.netuid,
            text: text.clone(),
        };
        let signed = self.client.sign(pair, &call).await.unwrap();
        let fee = self.client.fee(self.head().await, &signed).await.unwrap();
        assert_eq!(fee, 0, "the runtime takes a fee");
        match self.client.carry_out(signed).await {
            Ok(done) => {
                let hotkey = pair.hotkey();
                let kept = self.client.commitment(done.block, self.netuid, &hotkey);
                let kept = kept.await.unwrap().unwrap();
                assert_eq!((kept.block, kept.text()), (done.block.number, Ok(text)));
                eprintln!("committed in block {} and read back", done.block.number);
            }
            Err(SubmitError::Dispatch { error, .. }) if error == "AccountNotAllowedCommit" => {
                eprintln!("SKIPPED: {} is not registered there", pair.hotkey());
            }
            Err(other) => panic!("{other}"),
        }
    }

    async fn sets_weights(
        &self,
        pair: &HotkeyPair,
        snapshot: &SubnetSnapshot,
        vector: &WeightVector,
        version_key: u64,
    ) {
        let call = Call::SetMechanismWeights {
            netuid: self.netuid,
            mechanism: MechanismId(0),
            weights: vector.entries().to_vec(),
            version_key,
        };
        let done = self.client.submit(pair, call).await.unwrap();
        let uid = snapshot.metagraph.by_hotkey(&pair.hotkey()).unwrap().uid;
        let row = self
            .client
            .weights_row(done.block, self.netuid, MechanismId(0), uid);
        assert!(vector.matches(&row.await.unwrap()));
        eprintln!("weights set in block {} and read back", done.block.number);
    }

    /// The commit alone: its reveal is up to two tempos away.
    async fn commits_weights(
        &self,
        pair: &HotkeyPair,
        snapshot: &SubnetSnapshot,
        vector: &WeightVector,
        version_key: u64,
    ) {
        use assay::bittensor::reveal::{Beacon, reveal_round};
        let state = self
            .client
            .epoch_state(snapshot.at, self.netuid)
            .await
            .unwrap();
        let period = snapshot.hyperparameters.commit_reveal_period;
        let beacon = Beacon::quicknet();
        let clock = (snapshot.timestamp_ms, 12_000);
        let round = reveal_round(&state, period, clock, &beacon).unwrap();
        let plain = timelock::payload(&pair.hotkey(), vector.entries(), version_key);
        let call = Call::CommitTimelockedWeights {
            netuid: self.netuid,
            mechanism: MechanismId(0),
            commit: timelock::encrypt(&beacon, round, &plain, rand::random()).unwrap(),
            reveal_round: round,
        };
        let done = self.client.submit(pair, call).await.unwrap();
        let after = self.snapshot(done.block).await;
        let me = after.metagraph.by_hotkey(&pair.hotkey()).unwrap();
        assert_eq!(me.last_update, done.block.number);
        eprintln!(
            "weights committed in block {} for round {round}",
            done.block.number
        );
    }
}

fn hotkey_of_environment() -> Option<HotkeyPair> {
    let Ok(name) = std::env::var("ASSAY_HOTKEY") else {
        eprintln!(
            "SKIPPED: ASSAY_HOTKEY names no hotkey, a dev URI or a file, so nothing is written"
        );
        return None;
    };
    if name.starts_with("//") {
        return Some(HotkeyPair::from_uri(&name).unwrap());
    }
    Some(
        HotkeyPair::load(std::path::Path::new(&name), None)
            .unwrap()
            .0,
    )
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: ASSAY_CHAIN"]
async fn a_real_node_is_read_whole() {
    if let Some(live) = Live::of_environment().await {
        live.reads().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node and a hotkey: ASSAY_CHAIN, ASSAY_HOTKEY"]
async fn a_real_node_takes_commitments_and_weights() {
    let Some(live) = Live::of_environment().await else {
        return;
    };
    if let Some(pair) = hotkey_of_environment() {
        live.writes(&pair).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checks_for_real_nodes_pass_on_the_dev_chain() {
    for commit_reveal in [false, true] {
        let mut genesis = genesis();
        genesis.subnets[0].commit_reveal_weights_enabled = commit_reveal;
        let chain = DevChain::start(genesis, Options::default()).await.unwrap();
        for _ in 0..4 {
            chain.seal().unwrap();
        }
        let live = Live::connect(chain.url(), Netuid(11)).await;
        if !commit_reveal {
            live.reads().await;
        }
        live.writes(&HotkeyPair::from_uri("//Validator").unwrap())
            .await;
        let snapshot = live.snapshot(live.head().await).await;
        let me = snapshot.metagraph.by_uid(Uid(1)).unwrap();
        assert!(me.last_update.0 > 0, "something was set or committed");
        assert_eq!(snapshot.commitments.len(), 1);
    }
}

//! Every check that the pallets and the pool make of a weights call, a timelocked commit and a
//! commitment, provoked on a chain that makes it; what the client reports; what it does then; and
//! whether it would have known beforehand.
//!
//! Not provoked, because no chain of these runtimes does it: `UnexpectedUnreserveLeftover` (deposits
//! are 0), `CommitPayloadTooLarge`, `CommitQueueFull` and `TimelockRevealFailedNotAllowed` (newer
//! runtimes). `NotEnoughStakeToSetWeights`, `SubnetNotExists`, `SettingWeightsTooFast` and
//! `InvalidRevealRound` never reach a block: the pool's guards come first, as on the real runtime.

use super::wire::{NETUID, pair, settings, soon};
use crate::devchain::checks;
use crate::devchain::client::{DevKey, connect};
use assay::bittensor::{BlockHash, MechanismId, Netuid, Uid};
use assay::chain::{Call, ChainClient, Pending, Refusal, Remedy, SubmitError};
use assay::devchain::{DevChain, Genesis, Options, RpcFault};
use assay::incentive::WeightVector;
use assay::incentive::weights::preflight;
use serde_json::json;
use subxt::dynamic::{self, Value};
use subxt::{OnlineClient, SubstrateConfig};

type Raw = subxt::tx::DynamicPayload<Vec<Value>>;

/// What is sent.
enum Sent {
    /// By the client, from its own closed list of calls.
    Ours(Call),
    /// By an unmodified subxt, where the client has no such call; the client finds out what came of it.
    Others(Raw),
}

/// How it ends, with what the client does then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Ok,
    /// The client does not sign it.
    Unsent(Remedy),
    /// 1010 with subtensor's own number.
    Pool(u8, Remedy),
    /// In the block, by the pallet's own name.
    Block(&'static str, Remedy),
}

use End::{Block, Ok as Fine, Pool, Unsent};
use Remedy::{AwaitRateLimit, RecomputeRound, SignAnew, Stop};

/// Check of the reference, signer, what is sent, how it ends, and the name that the client's own
/// check gives beforehand (the pallet's, where it is a weights call).
struct Row {
    check: &'static str,
    signer: &'static str,
    sent: Sent,
    end: End,
    before: Option<&'static str>,
}

fn row(check: &'static str, signer: &'static str, sent: Sent, end: End) -> Row {
    let before = match end {
        Block(name, _) => name.strip_prefix("SubtensorModule."),
        _ => None,
    };
    let before = before.filter(|_| matches!(sent, Sent::Ours(Call::SetMechanismWeights { .. })));
    Row {
        check,
        signer,
        sent,
        end,
        before,
    }
}

/// The same, where the pool is first and its number covers the pallet's error of this name.
fn guarded(
    check: &'static str,
    signer: &'static str,
    sent: Sent,
    end: End,
    name: &'static str,
) -> Row {
    Row {
        before: Some(name),
        ..row(check, signer, sent, end)
    }
}

fn weights(netuid: u16, mechanism: u8, entries: &[(u16, u16)], version_key: u64) -> Sent {
    Sent::Ours(Call::SetMechanismWeights {
        netuid: Netuid(netuid),
        mechanism: MechanismId(mechanism),
        weights: entries.iter().map(|(uid, w)| (Uid(*uid), *w)).collect(),
        version_key,
    })
}

/// Subnet 12 of [`checks::genesis`], every limit of which is tight: version 7, three entries at
/// least, none above 30000 of 65535.
fn tight(entries: &[(u16, u16)]) -> Sent {
    weights(12, 0, entries, 7)
}

/// A round that the beacon has not reached.
const FAR: u64 = 1 << 40;

fn timelocked(netuid: u16, mechanism: u8, bytes: usize, reveal_round: u64) -> Sent {
    Sent::Ours(Call::CommitTimelockedWeights {
        netuid: Netuid(netuid),
        mechanism: MechanismId(mechanism),
        commit: vec![0xab; bytes],
        reveal_round,
    })
}

fn commitment(text: &str) -> Sent {
    Sent::Ours(super::wire::commitment(text))
}

fn other(pallet: &str, call: &str, arguments: Vec<Value>) -> Sent {
    Sent::Others(dynamic::tx(pallet, call, arguments))
}

fn numbers(numbers: &[u16]) -> Value {
    Value::unnamed_composite(numbers.iter().map(|n| Value::u128((*n).into())))
}

fn plain_weights(netuid: u16, uids: &[u16], values: &[u16]) -> Sent {
    let arguments = vec![
        Value::u128(netuid.into()),
        Value::u128(0),
        numbers(uids),
        numbers(values),
        Value::u128(0),
    ];
    other("SubtensorModule", "set_mechanism_weights", arguments)
}

/// A hyperparameter, by root.
fn root(call: &str, arguments: Vec<Value>) -> Row {
    let call = Value::unnamed_variant(call, arguments);
    let call = Value::unnamed_variant("AdminUtils", [call]);
    row("set-up", "//Alice", other("Sudo", "sudo", vec![call]), Fine)
}

fn of(netuid: u16, value: Value) -> Vec<Value> {
    vec![Value::u128(netuid.into()), value]
}

fn four_fields() -> Sent {
    let field = || Value::unnamed_variant("Raw1", [Value::from_bytes([7])]);
    let fields = Value::unnamed_composite([field(), field(), field(), field()]);
    let info = Value::named_composite([("fields", fields)]);
    other("Commitments", "set_commitment", of(11, info))
}

/// §4.2, plain weights, and §3.3, commitments; stake threshold 1000.
#[rustfmt::skip]
fn plain() -> Vec<Row> {
    let even = [(3, 9), (4, 9), (5, 9)];
    let (validator, late) = ("//Validator", "//Latecomer");
    let mut rows = vec![
        row("4.2 row 3", validator, plain_weights(11, &[2, 3], &[1]),
            Block("SubtensorModule.WeightVecNotEqualSize", Stop)),
        guarded("4.2 row 4", validator, weights(11, 7, &[(2, 1)], 0),
            Pool(6, AwaitRateLimit), "MechanismDoesNotExist"),
        row("4.2 row 4, no such subnet", validator, timelocked(99, 0, 40, FAR), Pool(1, Stop)),
        row("4.2 row 5", validator, tight(&[(0, 9), (1, 9), (2, 9), (3, 9), (4, 9), (5, 9), (6, 9)]),
            Block("SubtensorModule.UidsLengthExceedUidsInSubNet", Stop)),
        guarded("4.2 row 6", "//Stranger", tight(&even), Pool(1, Stop), "HotKeyNotRegisteredInSubNet"),
        guarded("4.2 row 7", "//Miner1", tight(&even), Pool(1, Stop), "NotEnoughStakeToSetWeights"),
        row("4.2 row 7, the owner is exempt", "//OwnerHot", tight(&even), Fine),
        row("4.2 row 8", validator, weights(12, 0, &even, 6),
            Block("SubtensorModule.IncorrectWeightVersionKey", Stop)),
        row("4.2 row 10", late, tight(&even), Block("SubtensorModule.NeuronNoValidatorPermit", Stop)),
        row("4.2 row 10, a weight on oneself is exempt", late, tight(&[(2, 1)]), Fine),
        row("4.2 row 11", validator, plain_weights(11, &[2, 2], &[1, 1]),
            Block("SubtensorModule.DuplicateUids", Stop)),
        row("4.2 row 12", validator, tight(&[(3, 9), (4, 9), (9, 9)]),
            Block("SubtensorModule.UidVecContainInvalidOne", Stop)),
        row("4.2 row 13", validator, tight(&even[..2]),
            Block("SubtensorModule.WeightVecLengthIsLow", Stop)),
        row("4.2 row 14", validator, tight(&[(3, 900), (4, 9), (5, 9)]),
            Block("SubtensorModule.MaxWeightExceeded", Stop)),
        row("4.2, all pass", validator, tight(&even), Fine),
        root("sudo_set_weights_set_rate_limit", of(12, Value::u128(100))),
        guarded("4.2 row 9", validator, tight(&even), Pool(6, AwaitRateLimit), "SettingWeightsTooFast"),
        row("4.3 commit-reveal is off", validator, timelocked(11, 0, 40, FAR),
            Block("SubtensorModule.CommitRevealDisabled", SignAnew)),
        row("3.3 error 0", "//Miner1", four_fields(),
            Block("Commitments.TooManyFieldsInCommitmentInfo", Stop)),
        row("3.3 error 1", "//Stranger", commitment("x"),
            Block("Commitments.AccountNotAllowedCommit", Stop)),
        row("3.3, beyond one field", "//Miner1", commitment(&"x".repeat(513)), Unsent(Stop)),
    ];
    rows.extend((0..6).map(|n| row("3.3, space is taken", "//Miner1", commitment(&format!("{n:0512}")), Fine)));
    rows.push(row("3.3 error 2", "//Miner1", commitment("x"),
        Block("Commitments.SpaceLimitExceeded", Stop)));
    rows
}

/// The same with stake threshold 0, where the guards of the pool let more through.
#[rustfmt::skip]
fn open() -> Vec<Row> {
    let off = || of(0, Value::bool(false));
    vec![
        root("sudo_set_commit_reveal_weights_enabled", off()),
        row("4.2 row 2", "//Validator", weights(0, 0, &[(2, 1)], 0),
            Block("SubtensorModule.CanNotSetRootNetworkWeights", Stop)),
        row("4.2 row 6", "//Stranger", tight(&[(3, 9), (4, 9), (5, 9)]),
            Block("SubtensorModule.HotKeyNotRegisteredInSubNet", Stop)),
        root("sudo_set_commit_reveal_weights_enabled", of(11, Value::bool(true))),
        row("4.3 not registered", "//Stranger", timelocked(11, 0, 40, FAR),
            Block("SubtensorModule.HotKeyNotRegisteredInSubNet", Stop)),
    ]
}

/// §4.3, timelocked commits.
#[rustfmt::skip]
fn secret() -> Vec<Row> {
    let validator = "//Validator";
    let mut rows = vec![
        root("sudo_set_commit_reveal_weights_enabled", of(11, Value::bool(true))),
        row("4.2 row 1, seen before signing", validator, weights(11, 0, &[(2, 1)], 0), Unsent(SignAnew)),
        row("4.2 row 1", validator, plain_weights(11, &[2], &[1]),
            Block("SubtensorModule.CommitRevealEnabled", SignAnew)),
        row("4.3 stake", "//Miner2", timelocked(11, 0, 40, FAR), Pool(1, Stop)),
        row("4.3 round", validator, timelocked(11, 0, 40, 5), Pool(15, RecomputeRound)),
        row("4.3 size", validator, timelocked(11, 0, 5001, FAR), Unsent(Stop)),
        row("4.3 mechanism", validator, timelocked(11, 9, 40, FAR),
            Block("SubtensorModule.MechanismDoesNotExist", Stop)),
        root("sudo_set_commit_reveal_version", vec![Value::u128(5)]),
        row("4.3 version", validator, timelocked(11, 0, 40, FAR),
            Block("SubtensorModule.IncorrectCommitRevealVersion", Stop)),
        root("sudo_set_commit_reveal_version", vec![Value::u128(4)]),
    ];
    rows.extend((0..10).map(|_| row("4.3, all pass", validator, timelocked(11, 0, 40, FAR), Fine)));
    rows.push(row("4.3 pending commits", validator, timelocked(11, 0, 40, FAR),
        Block("SubtensorModule.TooManyUnrevealedCommits", Stop)));
    rows.push(root("sudo_set_weights_set_rate_limit", of(11, Value::u128(100))));
    rows.push(row("4.3 rate limit", validator, timelocked(11, 0, 40, FAR),
        Block("SubtensorModule.CommittingWeightsTooFast", AwaitRateLimit)));
    rows
}

struct Trial {
    chain: DevChain,
    client: ChainClient,
    subxt: OnlineClient<SubstrateConfig>,
}

impl Trial {
    async fn start(genesis: Genesis, options: Options) -> Self {
        let chain = DevChain::start(genesis, options).await.unwrap();
        chain.seal().unwrap();
        Self {
            client: ChainClient::connect(&settings(&chain)).await.unwrap(),
            subxt: connect(&chain).await,
            chain,
        }
    }

    async fn run(&self, row: &Row) -> Result<(), SubmitError> {
        let pending = match &row.sent {
            Sent::Ours(call) => {
                let signed = self.client.sign(&pair(row.signer), call).await?;
                let pending = signed.pending().clone();
                self.client.send(signed).await?;
                pending
            }
            Sent::Others(call) => self.send(row.signer, call).await,
        };
        self.chain.seal().unwrap();
        self.client.settle(&pending).await.map(|_| ())
    }

    async fn send(&self, signer: &str, call: &Raw) -> Pending {
        let key = DevKey::new(signer);
        let born = self.client.finalised_head().await.unwrap().number;
        let mut tx = self.subxt.tx().await.unwrap();
        let params = subxt::config::DefaultExtrinsicParamsBuilder::new()
            .mortal(32)
            .build();
        let signed = tx.create_signed(call, &key, params).await.unwrap();
        let nonce = self
            .client
            .sign(&pair(signer), &super::wire::commitment("n"))
            .await;
        let pending = Pending {
            hotkey: pair(signer).hotkey(),
            nonce: nonce.unwrap().pending().nonce,
            extrinsic: BlockHash(sp_crypto_hashing::blake2_256(signed.encoded())),
            born,
            dies: born.plus(32),
        };
        signed.submit().await.unwrap();
        pending
    }

    /// What the client's own check says beforehand.
    async fn before(&self, row: &Row) -> Option<&'static str> {
        let Sent::Ours(Call::SetMechanismWeights {
            netuid,
            mechanism,
            weights,
            version_key,
        }) = &row.sent
        else {
            return None;
        };
        let at = self.client.finalised_head().await.unwrap();
        let snapshot = self
            .client
            .mechanism_snapshot(*netuid, *mechanism, at)
            .await;
        // There is no snapshot of a subnet that is none, and none is needed of the root network.
        let snapshot = snapshot.ok()?;
        let vector = WeightVector::new(weights.clone()).unwrap();
        let hotkey = pair(row.signer).hotkey();
        let check = preflight(&vector, &snapshot, &hotkey, *version_key);
        check.err().map(|error| error.pallet_error().unwrap())
    }
}

fn end(result: Result<(), SubmitError>) -> (String, Option<Remedy>) {
    let Err(error) = result else {
        return ("ok".to_owned(), None);
    };
    let remedy = Some(error.remedy());
    let name = match &error {
        SubmitError::Pool {
            refusal: Refusal::Custom(n),
            code: 1010,
            ..
        } => format!("pool {n}"),
        SubmitError::Dispatch { pallet, error, .. } => format!("{pallet}.{error}"),
        SubmitError::CommitRevealDemanded(_) | SubmitError::BadCall(_) => "unsent".to_owned(),
        other => other.to_string(),
    };
    (name, remedy)
}

fn wanted(end: End) -> (String, Option<Remedy>) {
    match end {
        Fine => ("ok".to_owned(), None),
        Unsent(remedy) => ("unsent".to_owned(), Some(remedy)),
        Pool(number, remedy) => (format!("pool {number}"), Some(remedy)),
        Block(name, remedy) => (name.to_owned(), Some(remedy)),
    }
}

async fn check(rows: Vec<Row>, genesis: Genesis, options: Options) {
    let trial = Trial::start(genesis, options).await;
    for row in &rows {
        let before = trial.before(row).await;
        let found = end(soon(trial.run(row)).await);
        assert_eq!(found, wanted(row.end), "{}, {}", row.check, row.signer);
        let known = (row.check, before);
        assert_eq!(known, (row.check, row.before), "the client's own check");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_weights_and_commitments() {
    for options in checks::runtimes() {
        check(plain(), checks::genesis(), options).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_pools_guards_hide() {
    for options in checks::runtimes() {
        let mut genesis = checks::genesis();
        genesis.stake_threshold = 0;
        check(open(), genesis, options).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn timelocked_commits() {
    for options in checks::runtimes() {
        check(secret(), checks::genesis(), options).await;
    }
}

/// §4.4: the numbers of the pool that nothing which this program signs can bring about, from a node
/// that says them all the same: none is tried again before a person has looked.
#[tokio::test(flavor = "multi_thread")]
async fn the_pools_other_numbers_stop_the_sender() {
    let trial = Trial::start(checks::genesis(), crate::devchain::client::manual()).await;
    for number in [0u8, 2, 3, 4, 5, 10, 14, 16, 17, 18, 19, 20, 21, 255] {
        let fault = RpcFault::Error {
            code: 1010,
            message: "Invalid Transaction".to_owned(),
            data: Some(json!(format!("Custom error: {number}"))),
        };
        let method = "author_submitAndWatchExtrinsic";
        trial.chain.faults().inject(method, fault, Some(1));
        let call = super::wire::commitment("x");
        let signed = trial.client.sign(&pair("//Miner1"), &call).await.unwrap();
        let error = trial.client.send(signed).await.unwrap_err();
        assert!(
            error.to_string().contains(&format!("Custom({number})")),
            "{error}"
        );
        assert_eq!(error.remedy(), Stop, "{number}");
        assert!(!error.to_fault().retryable, "{number}");
    }
    assert_eq!((trial.chain.pending(), NETUID), (0, Netuid(11)));
}

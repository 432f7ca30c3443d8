//! The dev chain answers as a real runtime (spec 425) did: recorded calls and recorded extrinsics.

use super::client::manual;
use assay::devchain::{DevChain, Options, Snapshot};
use scale_value::scale::decode_as_type;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use subxt::rpcs::client::{RpcClient, rpc_params};

/// The folder of recordings, or `None`, said aloud.
fn folder() -> Option<PathBuf> {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/golden");
    let folder = std::env::var_os("ASSAY_GOLDEN").map_or(default, PathBuf::from);
    if folder.join("runtime-425.json").exists() {
        return Some(folder);
    }
    println!("SKIPPED: no recordings in {}", folder.display());
    None
}

pub(super) fn unhex(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap().trim_start_matches("0x")).unwrap()
}

fn hash(value: &Value) -> [u8; 32] {
    unhex(value).try_into().unwrap()
}

/// One line per field of the innermost struct.
fn lines(value: &scale_value::Value) -> Vec<String> {
    use scale_value::{Composite, ValueDef};
    match &value.value {
        ValueDef::Composite(Composite::Named(fields)) => fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect(),
        ValueDef::Composite(Composite::Unnamed(values)) => values.iter().flat_map(lines).collect(),
        ValueDef::Variant(variant) => variant.values.values().flat_map(lines).collect(),
        _ => vec![value.to_string()],
    }
}

pub(super) fn entry(pallet: &str, entry: &str) -> Vec<u8> {
    let halves = [pallet, entry].map(|name| sp_crypto_hashing::twox_128(name.as_bytes()));
    halves.concat()
}

pub(super) struct Recording {
    pub(super) json: Value,
    /// The recorded runtime, spec 425.
    pub(super) options: Options,
}

impl Recording {
    pub(super) fn load() -> Option<Self> {
        let folder = folder()?;
        let text = std::fs::read_to_string(folder.join("runtime-425.json")).unwrap();
        Some(Self {
            json: serde_json::from_str(&text).unwrap(),
            options: Options {
                metadata: Some(folder.join("metadata-425-v16.scale")),
                ..manual()
            },
        })
    }

    /// The recorded chain's block hashes, from `System.BlockHash`.
    fn block_hashes(&self) -> BTreeMap<u32, [u8; 32]> {
        let prefix = entry("System", "BlockHash");
        let hashes = self.storage().into_iter().filter_map(|(key, value)| {
            // Twox64Concat: eight bytes of hash, then the number.
            let number = key.strip_prefix(prefix.as_slice())?.get(8..)?;
            let number = u32::from_le_bytes(number.try_into().unwrap());
            Some((number, value.try_into().unwrap()))
        });
        hashes.collect()
    }

    /// Where two answers of `method` differ, field by field.
    fn fields(&self, method: &str, got: &Value, want: &Value) -> Vec<String> {
        let bytes = std::fs::read(self.options.metadata.as_ref().unwrap()).unwrap();
        let metadata = subxt::Metadata::decode_from(&bytes).unwrap();
        let (api, name) = method.split_once('_').unwrap();
        let api = metadata.runtime_api_trait_by_name(api).unwrap();
        let ty = api.method_by_name(name).unwrap().output_ty();
        let decode = |value: &Value| {
            let bytes = unhex(value);
            let value = decode_as_type(&mut bytes.as_slice(), ty, metadata.types()).unwrap();
            lines(&value.remove_context())
        };
        let (got, want) = (decode(got), decode(want));
        let pairs = got.iter().zip(&want).filter(|(got, want)| got != want);
        pairs
            .map(|(got, want)| format!("\n   got {got}\n  want {want}"))
            .collect()
    }

    pub(super) fn storage(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let storage = self.json["snapshot"]["storage"].as_object().unwrap();
        storage
            .iter()
            .map(|(key, value)| (hex::decode(&key[2..]).unwrap(), unhex(value)))
            .collect()
    }

    pub(super) async fn start(
        &self,
        number: u32,
        storage: BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> (DevChain, RpcClient) {
        self.start_on(self.options.clone(), number, storage).await
    }

    pub(super) async fn start_on(
        &self,
        options: Options,
        number: u32,
        storage: BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> (DevChain, RpcClient) {
        let mut hashes = self.block_hashes();
        let snapshot = Snapshot {
            number,
            hash: hashes.remove(&number).unwrap_or([0; 32]),
            genesis_hash: hash(&self.json["snapshot"]["genesis"]),
            pretended_hashes: hashes,
            storage,
        };
        let chain = DevChain::start(snapshot, options).await.unwrap();
        let rpc = RpcClient::from_insecure_url(chain.url()).await.unwrap();
        (chain, rpc)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_runtime_calls_are_answered_byte_for_byte() {
    let Some(recording) = Recording::load() else {
        return;
    };
    let (_chain, rpc) = recording.start(88, recording.storage()).await;
    let mut wrong = Vec::new();
    for (call, answer) in recording.json["snapshot"]["calls"].as_object().unwrap() {
        let (method, arguments) = call.split_once(' ').unwrap();
        let params = rpc_params![method, arguments];
        let got: Value = rpc.request("state_call", params).await.unwrap();
        if got != answer["result"] {
            let fields = recording.fields(method, &got, &answer["result"]);
            // The runtime has a built-in table of subnet names, which no storage tells.
            let known = fields
                .iter()
                .all(|f| f.contains("name: (100, 105, 112, 112, 121)"));
            if fields.is_empty() || !known {
                wrong.push(format!("{call}: {}", fields.concat()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const NETUID: [u8; 2] = [11, 0];

/// Key of a value under netuid 11.
fn subnet_key(name: &str) -> Vec<u8> {
    [entry("SubtensorModule", name), NETUID.to_vec()].concat()
}

/// Takes the recorded end back to where the first case began: block 54, two blocks into the
/// epoch, no commitment, no weights, commit-reveal off, each signer at its first nonce.
pub(super) fn rewind(recording: &Recording) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut storage = recording.storage();
    let gone = [
        entry("Commitments", "CommitmentOf"),
        entry("Commitments", "LastCommitment"),
        entry("Commitments", "UsedSpaceOf"),
        entry("SubtensorModule", "Weights"),
        entry("SubtensorModule", "TimelockedWeightCommits"),
        entry("System", "BlockHash"),
        entry("System", "Events"),
    ];
    storage.retain(|key, _| !gone.iter().any(|prefix| key.starts_with(prefix)));
    for (number, hash) in recording.block_hashes().range(..54) {
        let number = number.to_le_bytes();
        let suffix = [&sp_crypto_hashing::twox_64(&number)[..], &number].concat();
        storage.insert(
            [entry("System", "BlockHash"), suffix].concat(),
            hash.to_vec(),
        );
    }
    storage.insert(entry("System", "Number"), 54u32.to_le_bytes().to_vec());
    let mut put = |name: &str, value: u64| {
        storage.insert(subnet_key(name), value.to_le_bytes().to_vec());
    };
    put("LastEpochBlock", 52);
    put("SubnetEpochIndex", 2);
    put("BlocksSinceLastStep", 2);
    // Subnet 1 has never run an epoch.
    let idle = [entry("SubtensorModule", "BlocksSinceLastStep"), vec![1, 0]].concat();
    storage.insert(idle, 54u64.to_le_bytes().to_vec());
    storage.insert(subnet_key("CommitRevealWeightsEnabled"), vec![0]);
    // The recording leaves this pallet out.
    let alice = assay::devchain::account_id("//Alice").unwrap();
    storage.insert(entry("Sudo", "Key"), alice.to_vec());
    let updates = storage.get_mut(&subnet_key("LastUpdate")).unwrap();
    // A compact length of one byte, then eight bytes per uid: uid 1 registered at block 30.
    updates[9..17].copy_from_slice(&30u64.to_le_bytes());
    let mut seen = std::collections::HashSet::new();
    for case in recording.json["cases"].as_array().unwrap() {
        let Some(signer) = case["signer"].as_str() else {
            continue;
        };
        let account = assay::devchain::account_id(signer).unwrap();
        let hash = sp_crypto_hashing::blake2_128(&account);
        let key = [entry("System", "Account"), hash.to_vec(), account.to_vec()].concat();
        if seen.insert(account)
            && let Some(value) = storage.get_mut(&key)
        {
            let nonce = u32::try_from(case["nonce"].as_u64().unwrap()).unwrap();
            value[..4].copy_from_slice(&nonce.to_le_bytes());
        }
    }
    storage
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_extrinsics_end_as_they_did() {
    let Some(recording) = Recording::load() else {
        return;
    };
    let (chain, rpc) = recording.start(54, rewind(&recording)).await;
    let cases = recording.json["cases"].as_array().unwrap();
    for case in cases {
        let label = case["label"].as_str().unwrap();
        let number = case["block"]["number"].as_u64();
        while number.is_some_and(|n| chain.head().number.0 + 1 < n) {
            chain.seal().unwrap();
            if chain.head().number.0 == 88 {
                compare_with_snapshot(&recording, &rpc).await;
            }
        }
        let params = rpc_params![case["extrinsic"].as_str().unwrap()];
        let answer = rpc.request::<Value>("author_submitExtrinsic", params).await;
        match (&case["rpc_error"], answer) {
            (Value::Null, Ok(hash)) => {
                assert_eq!(hash, case["hash"], "{label}");
                chain.seal().unwrap();
                let key = format!("0x{}", hex::encode(entry("System", "Events")));
                let params = rpc_params![key];
                let events: Value = rpc.request("state_getStorage", params).await.unwrap();
                let (got, want) = (
                    recording.events(&events),
                    recording.events(&case["events_raw"]),
                );
                assert_eq!(got, want, "{label}");
            }
            (want, Err(subxt::rpcs::Error::User(got))) => {
                // The recording's client put code and data into the message.
                let data = got.data.unwrap();
                let data: String = serde_json::from_str(data.get()).unwrap();
                let message = format!("{}: {}: {data}", got.code, got.message);
                assert_eq!(want["message"], message, "{label}");
                assert_eq!(want["data"], data, "{label}");
            }
            (want, got) => panic!("{label}: want {want}, got {got:?}"),
        }
    }
    assert_eq!(cases.len(), 26);
    assert_eq!(chain.head().number.0, 89);
}

impl Recording {
    /// The events of extrinsic 1, without weights and fees, which the dev chain does not model.
    fn events(&self, raw: &Value) -> Vec<String> {
        let bytes = std::fs::read(self.options.metadata.as_ref().unwrap()).unwrap();
        let metadata = subxt::Metadata::decode_from(&bytes).unwrap();
        let system = metadata.pallet_by_name("System").unwrap();
        let events = system.storage().unwrap().entry_by_name("Events").unwrap();
        let bytes = unhex(raw);
        let list = decode_as_type(&mut bytes.as_slice(), events.value_ty(), metadata.types());
        let scale_value::ValueDef::Composite(list) = list.unwrap().remove_context().value else {
            panic!("events are a list");
        };
        let records = list.into_values().map(|record| record.to_string());
        records
            .filter(|record| record.starts_with("{ phase: ApplyExtrinsic (1)"))
            .map(|record| mask(&mask(&record, "ref_time: "), "proof_size: "))
            .map(|record| mask(&record, "amount: "))
            .collect()
    }
}

/// Replaces the number behind `label`.
fn mask(text: &str, label: &str) -> String {
    let Some((head, tail)) = text.split_once(label) else {
        return text.to_owned();
    };
    let rest = tail.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{head}{label}_{rest}")
}

/// What the cases wrote by block 88 is what the real runtime stored.
async fn compare_with_snapshot(recording: &Recording, rpc: &RpcClient) {
    let written = [
        entry("Commitments", "CommitmentOf"),
        entry("Commitments", "LastCommitment"),
        entry("Commitments", "UsedSpaceOf"),
        entry("SubtensorModule", "Weights"),
        entry("SubtensorModule", "TimelockedWeightCommits"),
        entry("SubtensorModule", "LastUpdate"),
        entry("SubtensorModule", "Incentive"),
        entry("SubtensorModule", "Consensus"),
        entry("SubtensorModule", "Dividends"),
        entry("SubtensorModule", "ValidatorPermit"),
        entry("SubtensorModule", "Active"),
        entry("SubtensorModule", "SubnetEpochIndex"),
        entry("SubtensorModule", "LastEpochBlock"),
        entry("SubtensorModule", "BlocksSinceLastStep"),
        entry("SubtensorModule", "LastMechansimStepBlock"),
        entry("SubtensorModule", "CommitRevealWeightsEnabled"),
        entry("System", "Number"),
    ];
    for (key, value) in recording.storage() {
        if !written.iter().any(|prefix| key.starts_with(prefix)) {
            continue;
        }
        let key = format!("0x{}", hex::encode(key));
        let got: Value = rpc
            .request("state_getStorage", rpc_params![key.clone()])
            .await
            .unwrap();
        assert_eq!(got, format!("0x{}", hex::encode(&value)), "{key}");
    }
}

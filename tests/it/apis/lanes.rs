//! The Dataset API's process as its clients and attackers meet it: real child, real sockets.

mod steering;

use std::io::{BufRead, BufReader, Cursor};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use assay::bittensor::{BlockHash, BlockNumber, BlockRef, Netuid, RoundNumber};
use assay::chain::HotkeyPair;
use assay::dataset::rounds::{self, ListSpec};
use assay::dataset::sampling::Wanted;
use assay::dataset::source::Source;
use assay::dataset::{Corpus, ImportOptions, Signer, seal};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const SERVER: &str = "//DatasetServer";

/// A Dataset API with one pack and one round, as a child process.
struct Server {
    child: Child,
    public: SocketAddr,
    protected: SocketAddr,
}

fn key(uri: &str) -> HotkeyPair {
    HotkeyPair::from_uri(uri).unwrap()
}

fn folder_with_round() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let corpus = folder.path().join("corpus");
    let mut lines = String::new();
    for n in 0..300 {
        let day = if n % 2 == 0 {
            "2026-11-20"
        } else {
            "2026-10-01"
        };
        lines += &format!(
            r#"{{"created":"{day}","system_prompt":"You keep a lighthouse.","messages":[{{"role":"user","content":"Night {n}?"}},{{"role":"assistant","content":"Ship {n}, far out."}}]}}"#
        );
        lines.push('\n');
    }
    let mut opened = Corpus::open(&corpus).unwrap();
    let mut source = Source::lines(Path::new("lines"), Cursor::new(lines));
    let options = ImportOptions::new(folder.path().join("rejects"));
    opened
        .import(&mut source, &options, &mut |_, _| {})
        .unwrap();
    let pair = key("//Operator");
    let signer = Signer::new(pair.hotkey(), move |message| pair.sign(message));
    let packs = folder.path().join("packs");
    seal(&opened, &packs, (None, None), (&signer, 1_000), &mut |_| {}).unwrap();
    let spec = ListSpec {
        netuid: Netuid(11),
        era_id: "ab".repeat(32),
        number: RoundNumber(7),
        start: BlockRef {
            number: BlockNumber(700),
            hash: BlockHash([7; 32]),
        },
        start_ms: 1_795_219_200_000,
        seed: [3; 32],
        wanted: Wanted {
            fresh: 64,
            older: 64,
        },
    };
    rounds::build(&packs, &spec, &signer, 2_000).unwrap();
    folder
}

/// Alice is a validator of subnet 11, Bob a miner of it, Charlie a miner of 58.
fn write_metagraphs(state: &Path) {
    std::fs::create_dir_all(state).unwrap();
    let neuron = |uri: &str, permit: bool| {
        json!({ "hotkey": key(uri).hotkey(), "coldkey": key(&format!("{uri}//cold")).hotkey(),
            "validator_permit": permit, "total_stake": 1_000_000_000_000u64 })
    };
    for (netuid, neurons) in [
        (11, json!([neuron("//Alice", true), neuron("//Bob", false)])),
        (58, json!([neuron("//Charlie", false)])),
    ] {
        let snapshot = json!({ "netuid": netuid, "block": 1, "read_ms": 1, "neurons": neurons });
        let path = state.join(format!("metagraph-{netuid}.json"));
        std::fs::write(path, snapshot.to_string()).unwrap();
    }
}

fn config(folder: &Path, admin: u16) -> PathBuf {
    let path = folder.join("api.toml");
    write_metagraphs(&folder.join("state"));
    let text = format!(
        "[dataset_api]\nlisten = \"127.0.0.1:0\"\npacks = \"packs\"\nstate = \"state\"\nadmin = \"127.0.0.1:{admin}\"\nhotkey = \"{}\"\n\
         [dataset_api.limits]\nheader_timeout = \"1s\"\n\
         [dataset_api.protected]\nlisten = \"127.0.0.1:0\"\ntrusted = [\"127.0.0.9/32\"]\n\
         [[dataset_api.group]]\nname = \"sn11\"\nnetuid = 11\n[[dataset_api.group]]\nname = \"sn58\"\nnetuid = 58\n",
        key(SERVER).hotkey()
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn free_port() -> u16 {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    held.local_addr().unwrap().port()
}

impl Server {
    fn start(config: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_assay"))
            .args(["dataset-api", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = |start: &str| -> SocketAddr {
            let line = lines.next().expect("it ended early").unwrap();
            let url = line.strip_prefix(start).expect(&line);
            url.parse().unwrap()
        };
        let public = address("listening on http://");
        let protected = address("protected lane on http://");
        // The operator's lane comes last: from here on all three are there.
        let _ = address("operator's lane on http://");
        Self {
            child,
            public,
            protected,
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn from(source: &str) -> reqwest::Client {
    let source: IpAddr = source.parse().unwrap();
    let client = reqwest::Client::builder().local_address(source);
    client.timeout(Duration::from_secs(20)).build().unwrap()
}

async fn get(
    client: &reqwest::Client,
    at: SocketAddr,
    path: &str,
    token: Option<&str>,
) -> reqwest::Response {
    let mut request = client.get(format!("http://{at}{path}"));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    request.send().await.unwrap()
}

async fn code(answer: reqwest::Response) -> String {
    let problem: Value = answer.json().await.unwrap();
    problem["code"].as_str().unwrap().to_owned()
}

/// Gets a token by signing a challenge.
async fn token(
    client: &reqwest::Client,
    at: SocketAddr,
    uri: &str,
) -> (reqwest::StatusCode, Value) {
    let pair = key(uri);
    let address = pair.hotkey().to_string();
    let made = get(
        client,
        at,
        &format!("/v1/auth/challenge?address={address}"),
        None,
    )
    .await;
    let made: Value = made.json().await.unwrap();
    let challenge = made["challenge"].as_str().unwrap();
    let signature = hex::encode(pair.sign(challenge.as_bytes()));
    let body = json!({ "address": address, "challenge": challenge, "signature": signature });
    let url = format!("http://{at}/authenticate");
    let answer = client
        .post(url)
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    (answer.status(), answer.json().await.unwrap())
}

#[tokio::test]
async fn budgets_hold_over_a_kill_and_are_told_exactly() {
    let folder = folder_with_round();
    let config = config(folder.path(), free_port());
    let mut server = Server::start(&config);
    let client = from("127.0.0.2");
    let first = get(&client, server.public, "/dataset?limit=5", None).await;
    assert_eq!(first.status(), 200);
    assert_eq!(first.headers()["ratelimit"], "\"anonymous\";r=0;t=3600");
    let list: Value = first.json().await.unwrap();
    assert_eq!(list["all_convos"].as_array().unwrap().len(), 5);
    let second = get(&client, server.public, "/dataset", None).await;
    assert_eq!(second.status(), 429);
    let wait: u64 = second.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    assert_eq!(code(second).await, "BUDGET");
    server.kill();
    let server = Server::start(&config);
    let third = get(&client, server.public, "/dataset", None).await;
    assert_eq!(third.status(), 429, "the restart forgot the budget");
    let other = get(&from("127.0.0.3"), server.public, "/dataset", None).await;
    assert_eq!(other.status(), 200, "another network pays for this one");
    let me: Value = get(&client, server.public, "/v1/me", None)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(me["class"], "anonymous");
    assert_eq!(me["budgets"][0]["left"], 0);
}

#[tokio::test]
async fn classes_come_from_the_metagraph_and_lanes_are_kept_apart() {
    let folder = folder_with_round();
    let server = Server::start(&config(folder.path(), free_port()));
    let client = from("127.0.0.2");
    let (status, alice) = token(&client, server.public, "//Alice").await;
    assert_eq!(
        (status.as_u16(), &alice["class"], &alice["group"]),
        (200, &json!("validator"), &json!("sn11"))
    );
    let (_, bob) = token(&client, server.public, "//Bob").await;
    assert_eq!(bob["class"], "miner");
    let (_, nobody) = token(&client, server.public, "//Nobody").await;
    assert_eq!(nobody["class"], "coldkey");
    let (alice, bob) = (
        alice["token"].as_str().unwrap(),
        bob["token"].as_str().unwrap(),
    );

    for _ in 0..5 {
        let served = get(&client, server.protected, "/v1/rounds/7/items", Some(alice)).await;
        assert_eq!(served.status(), 200);
    }
    for _ in 0..3 {
        assert_eq!(
            get(&client, server.public, "/dataset", Some(bob))
                .await
                .status(),
            200
        );
    }
    assert_eq!(
        get(&client, server.public, "/dataset", Some(bob))
            .await
            .status(),
        429
    );
    let strayed = get(&client, server.protected, "/dataset", Some(bob)).await;
    assert_eq!(
        (strayed.status().as_u16(), code(strayed).await.as_str()),
        (403, "WRONG_LANE")
    );
    let forged = get(&client, server.public, "/dataset", Some("assay_AAAA")).await;
    assert_eq!(
        (forged.status().as_u16(), code(forged).await.as_str()),
        (401, "TOKEN")
    );
    let trusted = get(&from("127.0.0.9"), server.protected, "/dataset", None).await;
    assert_eq!(trusted.status(), 200);
    // A sample of a past date, the same for everyone.
    let path = "/dataset?start_date=2026-09-01&end_date=2026-10-05&limit=3";
    let past: Value = get(&client, server.protected, path, Some(alice))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(past["all_convos"].as_array().unwrap().len(), 3, "{past}");
    assert_eq!(past["all_convos"][0]["created"], "2026-10-01");
}

fn signed(
    pair: &HotkeyPair,
    target: &str,
    receiver: &str,
    nonce: u64,
) -> Vec<(&'static str, String)> {
    let (body, sender) = (hex::encode(Sha256::digest(b"")), pair.hotkey());
    let text = format!("btauth/1\nsr25519\nGET\n{target}\n{body}\n{nonce}\n{sender}\n{receiver}");
    vec![
        ("x-bittensor-version", "1".into()),
        ("x-bittensor-hotkey", sender.to_string()),
        ("x-bittensor-receiver", receiver.into()),
        ("x-bittensor-nonce", nonce.to_string()),
        (
            "x-bittensor-signature",
            format!("0x{}", hex::encode(pair.sign(text.as_bytes()))),
        ),
    ]
}

#[tokio::test]
async fn a_signed_request_counts_once_and_only_for_this_server() {
    let folder = folder_with_round();
    let server = Server::start(&config(folder.path(), free_port()));
    let (client, target) = (from("127.0.0.2"), "/v1/rounds/current/items");
    let ask = async |headers: &[(&'static str, String)]| {
        let mut request = client.get(format!("http://{}{target}", server.protected));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let answer = request.send().await.unwrap();
        answer.status().as_u16()
    };
    let (alice, me) = (key("//Alice"), key(SERVER).hotkey().to_string());
    let now = || assay::clock::now_ms() * 1_000_000;
    let good = signed(&alice, target, &me, now());
    assert_eq!(ask(&good).await, 200);
    assert_eq!(ask(&good).await, 401, "replayed");
    let other = key("//Eve").hotkey().to_string();
    assert_eq!(
        ask(&signed(&alice, target, &other, now())).await,
        401,
        "foreign receiver"
    );
    assert_eq!(
        ask(&signed(&alice, target, &me, now() - 11_000_000_000)).await,
        401,
        "expired"
    );
    assert_eq!(
        ask(&signed(&alice, "/v1/packs", &me, now())).await,
        401,
        "tampered"
    );
    assert_eq!(
        ask(&signed(&key("//Bob"), target, &me, now())).await,
        403,
        "a miner"
    );
}

#[tokio::test]
async fn the_interface_document_names_every_path() {
    let folder = folder_with_round();
    let server = Server::start(&config(folder.path(), free_port()));
    let client = from("127.0.0.9");
    let doc: Value = get(&client, server.protected, "/openapi.json", None)
        .await
        .json()
        .await
        .unwrap();
    let paths = doc["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 13);
    for (path, operations) in paths {
        let path = path.replace("{number}", "7").replace("{digest}", "x");
        let path = if path.contains("challenge") {
            format!("{path}?address=x")
        } else {
            path
        };
        let url = format!("http://{}{path}", server.protected);
        let request = if operations.get("post").is_some() {
            client.post(url)
        } else {
            client.get(url)
        };
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        assert!(
            !text.contains("NO_SUCH_PATH") && status != 405 && status < 500,
            "{path}: {status} {text}"
        );
    }
}

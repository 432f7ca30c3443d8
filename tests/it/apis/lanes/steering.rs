//! Orders of the operator, floods, and the origin's client.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Server, code, config, folder_with_round, free_port, from, get, token};

fn order(config: &Path, arguments: &[&str]) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_assay"))
        .args(["dataset", "--actor", "test", "--config"])
        .arg(config)
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

#[tokio::test]
async fn a_group_is_closed_off_while_the_other_goes_on() {
    let folder = folder_with_round();
    let config = config(folder.path(), free_port());
    let server = Server::start(&config);
    let client = from("127.0.0.2");
    let (_, bob) = token(&client, server.public, "//Bob").await;
    let (_, charlie) = token(&client, server.public, "//Charlie").await;
    let (bob, charlie) = (
        bob["token"].as_str().unwrap(),
        charlie["token"].as_str().unwrap(),
    );
    order(&config, &["block", "group:sn11", "--reason", "storm"]);
    let closed = get(&client, server.public, "/dataset", Some(bob)).await;
    assert_eq!(
        (closed.status().as_u16(), code(closed).await.as_str()),
        (403, "BLOCKED")
    );
    assert_eq!(
        get(&client, server.public, "/dataset", Some(charlie))
            .await
            .status(),
        200
    );
    order(&config, &["unblock", "group:sn11"]);
    assert_eq!(
        get(&client, server.public, "/dataset", Some(bob))
            .await
            .status(),
        200
    );
    order(
        &config,
        &["limit", "group:sn58", "--burst", "1", "--per-hour", "1"],
    );
    assert_eq!(
        get(&client, server.public, "/dataset", Some(charlie))
            .await
            .status(),
        200
    );
    assert_eq!(
        get(&client, server.public, "/dataset", Some(charlie))
            .await
            .status(),
        429
    );
    let given: Value = serde_json::from_str(&order(
        &config,
        &["token", "--class", "scorer", "--note", "worker 1"],
    ))
    .unwrap();
    let given = given["token"].as_str().unwrap().to_owned();
    assert_eq!(
        get(&client, server.protected, "/dataset", Some(&given))
            .await
            .status(),
        200
    );
    let top: Value = serde_json::from_str(&order(&config, &["top", "--once"])).unwrap();
    assert!(top["talkers"].as_array().unwrap().len() >= 2, "{top}");
    let audit = std::fs::read_to_string(folder.path().join("state/audit.jsonl")).unwrap();
    assert_eq!(audit.lines().count(), 4);
    assert!(!audit.contains(&given));
}

/// Opens a connection from `source`, sends `bytes`, and keeps it.
fn open(source: &str, to: SocketAddr, bytes: &[u8]) -> Option<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let source: IpAddr = source.parse().unwrap();
    bind(&socket, &SocketAddr::new(source, 0)).unwrap();
    connect(&socket, &to).ok()?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(bytes).ok()?;
    Some(stream)
}

#[tokio::test]
async fn a_flood_of_the_public_lane_leaves_the_protected_one_alone() {
    let folder = folder_with_round();
    let server = Server::start(&config(folder.path(), free_port()));
    let (public, protected) = (server.public, server.protected);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = stop.clone();
    let flood = std::thread::spawn(move || {
        let (mut answered, mut reset) = (0u32, 0u32);
        let mut held = Vec::new();
        for n in 0..3000u32 {
            if seen.load(std::sync::atomic::Ordering::Relaxed) {
                break;
            }
            let Some(mut stream) = open(
                "127.0.0.66",
                public,
                b"GET /dataset HTTP/1.1\r\nhost: a\r\n\r\n",
            ) else {
                continue;
            };
            if n < 20 {
                // Dribbled heads and slow readers, kept open.
                held.extend(open(
                    "127.0.0.67",
                    public,
                    b"GET /dataset HTTP/1.1\r\nhost:",
                ));
                held.extend(open(
                    "127.0.0.68",
                    protected,
                    b"GET /dataset HTTP/1.1\r\nx: ",
                ));
            }
            let mut answer = [0; 12];
            stream
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            match stream.read_exact(&mut answer) {
                Ok(()) => answered += 1,
                Err(_) => reset += 1,
            }
        }
        (answered, reset)
    });
    let client = from("127.0.0.9");
    let mut slowest = Duration::ZERO;
    for _ in 0..40 {
        let begun = Instant::now();
        let served = get(&client, protected, "/dataset", None).await;
        assert_eq!(served.status(), 200);
        served.bytes().await.unwrap();
        slowest = slowest.max(begun.elapsed());
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let (answered, reset) = flood.join().unwrap();
    assert!(
        reset > 0 || answered < 200,
        "{answered} refusals were answered and none reset"
    );
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}

#[tokio::test]
async fn the_origins_client_gets_data_it_can_use() {
    let folder = folder_with_round();
    let server = Server::start(&config(folder.path(), free_port()));
    let (_, bob) = token(&from("127.0.0.2"), server.public, "//Bob").await;
    let bob = bob["token"].as_str().unwrap();
    let script = "import sys, requests\n\
        r = requests.get(sys.argv[1] + '/dataset', headers={'Authorization': 'Bearer ' + sys.argv[2]}, params={'start_date': '2026-11-01', 'end_date': '2100-01-01', 'current_date': '2100-01-01', 'epoch_date': '2100-01-01', 'limit': 10})\n\
        r.raise_for_status()\n\
        c = r.json()['all_convos']\n\
        assert len(c) == 10, len(c)\n\
        assert all(m['role'] in ('user', 'assistant') and m['content'] for x in c for m in x['messages'])\n\
        assert all('system_prompt' in x for x in c)\n";
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python");
    let python = if venv.exists() {
        venv
    } else {
        "python3".into()
    };
    let has = Command::new(&python)
        .args(["-c", "import requests"])
        .output();
    if !has.is_ok_and(|out| out.status.success()) {
        println!(
            "SKIPPED: no Python with requests here; tests/it/python/requirements.txt names what this needs"
        );
        return;
    }
    let out = Command::new(python)
        .args(["-c", script, &format!("http://{}", server.public), bob])
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// One request and its answer, lower case.
fn ask(stream: &mut TcpStream, path: &str, head: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n{head}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = [0; 4096];
    let read = stream.read(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..read]).to_ascii_lowercase()
}

#[test]
fn a_refusal_ends_a_new_connection_and_leaves_a_served_one_open() {
    let folder = folder_with_round();
    let server = Server::start(&config(folder.path(), free_port()));
    let bogus = "authorization: Bearer assay_AAAA\r\n";
    let mut new = TcpStream::connect(server.public).unwrap();
    let refused = ask(&mut new, "/dataset", bogus);
    assert!(refused.starts_with("http/1.1 401"), "{refused}");
    assert!(refused.contains("connection: close"), "{refused}");
    assert_eq!(new.read(&mut [0; 16]).unwrap(), 0, "it is closed");

    let mut kept = TcpStream::connect(server.public).unwrap();
    assert!(ask(&mut kept, "/healthz", "").starts_with("http/1.1 200"));
    let refused = ask(&mut kept, "/dataset", bogus);
    assert!(refused.starts_with("http/1.1 401"), "{refused}");
    assert!(!refused.contains("connection: close"), "{refused}");
    assert!(ask(&mut kept, "/healthz", "").starts_with("http/1.1 200"));
}

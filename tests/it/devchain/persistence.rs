//! The journal: a killed chain goes on at the same head with the same hashes. And the command.

use super::client::{DevKey, commitment, connect, manual};
use assay::cmd::devchain::DevchainOptions;
use assay::devchain::{DevChain, DevChainError, Genesis, Options};
use std::time::Duration;
use subxt::dynamic::{self, Value};
use subxt::rpcs::client::{RpcClient, rpc_params};

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        dir: Some(dir.path().to_owned()),
        ..manual()
    };
    let chain = DevChain::start(Genesis::dev(), options.clone())
        .await
        .unwrap();
    chain.seal().unwrap();
    let api = connect(&chain).await;
    let miner = DevKey::new("//Miner5");
    let params = subxt::config::DefaultExtrinsicParamsBuilder::new()
        .mortal(32)
        .build();
    let progress = api
        .tx()
        .await
        .unwrap()
        .sign_and_submit_then_watch(&commitment("kept"), &miner, params)
        .await
        .unwrap();
    chain.seal().unwrap();
    progress.wait_for_finalized_success().await.unwrap();
    let before: Vec<_> = (0..3).map(|_| chain.seal().unwrap()).collect();
    drop(chain);

    // What a kill in the middle of a write leaves.
    let journal = dir.path().join("devchain.journal");
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes.truncate(bytes.len() - 7);
    std::fs::write(&journal, bytes).unwrap();

    let chain = DevChain::start(Genesis::dev(), options.clone())
        .await
        .unwrap();
    assert_eq!(
        chain.head(),
        before[1],
        "the torn block is dropped, the others are back"
    );
    let api = connect(&chain).await;
    let at = api.at_current_block().await.unwrap();
    let address = dynamic::storage::<(u16, [u8; 32]), Value>("Commitments", "CommitmentOf");
    let stored = at
        .storage()
        .fetch(address, (11, miner.public()))
        .await
        .unwrap();
    let bytes = stored.bytes().to_vec();
    assert!(bytes.ends_with(b"kept"), "{bytes:?}");
    assert_eq!(chain.seal().unwrap().number, before[2].number);
    drop(chain);

    let other = Genesis {
        chain: "Another".to_owned(),
        stake_threshold: 1,
        ..Genesis::dev()
    };
    let refused = DevChain::start(other, options).await;
    assert!(matches!(refused, Err(DevChainError::ForeignJournal { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_serves_a_genesis_file_until_it_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let genesis = dir.path().join("genesis.toml");
    let text = "chain = \"From a file\"\n[[subnet]]\nnetuid = 7\n";
    std::fs::write(&genesis, text).unwrap();
    // A port that was free a moment ago: the command's own port 0 is told on stdout only.
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listen.local_addr().unwrap();
    drop(listen);
    let options = DevchainOptions {
        genesis: Some(genesis),
        listen: address,
        block_time: Some(Duration::from_millis(50)),
        manual: false,
        finality_lag: 0,
        keep_states: 10,
        metadata: None,
        dir: None,
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped = async move { drop(stopped.await) };
    let asking = async {
        let url = format!("ws://{address}");
        let rpc = loop {
            match RpcClient::from_insecure_url(&url).await {
                Ok(rpc) => break rpc,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let name: String = rpc.request("system_chain", rpc_params![]).await.unwrap();
        drop(stop);
        name
    };
    let both = async { tokio::join!(assay::cmd::devchain::run(options, stopped), asking) };
    let (ended, name) = tokio::time::timeout(Duration::from_secs(20), both)
        .await
        .unwrap();
    ended.unwrap();
    assert_eq!(name, "From a file");
}

use super::*;

const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
const BOB: &str = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty";
const TARGET: &str = "/generate?stream=false";
const BODY: &[u8] = br#"{"prompt": "hello"}"#;
const NONCE: &str = "1752076800000000000";
const AT_MS: u64 = 1_752_076_800_000;
/// bittensor's own vector: ed25519 //Alice to //Bob.
const ED25519: &str = "0x1a6b631988bf1f7ea093ab9d5acf61f05c316d0b0e428b24b487b75a5f6ee0e1a56a26918fdf871b6cf09437e6588023a4ce423cf622621b2a7feee17612f704";

fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect::<HeaderMap>()
}

fn alice() -> sr25519::Pair {
    sr25519::Pair::from_string("//Alice", None).unwrap()
}

fn bob() -> Hotkey {
    BOB.parse().unwrap()
}

fn signed(method: &str, nonce: &str) -> HeaderMap {
    let body = hex::encode(Sha256::digest(BODY));
    let text = format!("btauth/1\nsr25519\n{method}\n{TARGET}\n{body}\n{nonce}\n{ALICE}\n{BOB}");
    let signature = format!("0x{}", hex::encode(alice().sign(text.as_bytes()).0));
    headers(&[
        ("x-bittensor-version", "1"),
        ("x-bittensor-hotkey", ALICE),
        ("x-bittensor-receiver", BOB),
        ("x-bittensor-nonce", nonce),
        ("x-bittensor-signature", &signature),
    ])
}

#[test]
fn the_vectors_of_btauth_hold() {
    assert_eq!(
        hex::encode(Sha256::digest(BODY)),
        "341c57448e531310fbbe83f44cea2a5e838bd9e8a6b82b269f01d0dbbc23c3cc"
    );
    let sender = ed25519::Pair::from_string("//Alice", None)
        .unwrap()
        .public();
    let sender = Hotkey(sender.0).to_string();
    let claim = Claim::read(&headers(&[
        ("x-bittensor-version", "1"),
        ("x-bittensor-hotkey", &sender),
        ("x-bittensor-receiver", BOB),
        ("x-bittensor-nonce", NONCE),
        ("x-bittensor-crypto", "ed25519"),
        ("x-bittensor-signature", ED25519),
    ]))
    .unwrap();
    claim.check(&bob(), AT_MS + 1, 0).unwrap();
    claim.verify("POST", TARGET, BODY).unwrap();
    let claim = Claim::read(&signed("POST", NONCE)).unwrap();
    assert_eq!(claim.sender().to_string(), ALICE);
    claim.verify("POST", TARGET, BODY).unwrap();
}

#[test]
fn whatever_is_tampered_with_is_refused() {
    let claim = Claim::read(&signed("POST", NONCE)).unwrap();
    for (method, target, body) in [
        ("GET", TARGET, BODY),
        ("POST", "/generate?stream=true", BODY),
        ("POST", "/generate", BODY),
        ("POST", TARGET, &b"{}"[..]),
    ] {
        assert_eq!(claim.verify(method, target, body), Err(Unsigned::Wrong));
    }
    for (name, value) in [
        ("x-bittensor-hotkey", BOB),
        ("x-bittensor-receiver", ALICE),
        ("x-bittensor-nonce", "1752076800000000001"),
        ("x-bittensor-crypto", "ed25519"),
    ] {
        let mut fields = signed("POST", NONCE);
        fields.insert(name, value.parse().unwrap());
        let claim = Claim::read(&fields).unwrap();
        assert_eq!(
            claim.verify("POST", TARGET, BODY),
            Err(Unsigned::Wrong),
            "{name}"
        );
    }
    for (name, value) in [
        ("x-bittensor-version", "2"),
        ("x-bittensor-hotkey", "5G"),
        ("x-bittensor-nonce", "-5"),
        ("x-bittensor-signature", "0x12"),
        ("x-bittensor-crypto", "ecdsa"),
    ] {
        let mut fields = signed("POST", NONCE);
        fields.insert(name, value.parse().unwrap());
        assert_eq!(Claim::read(&fields), Err(Unsigned::Malformed), "{name}");
    }
}

#[test]
fn foreign_receivers_and_times_out_of_the_window_are_refused_before_the_curve() {
    let claim = Claim::read(&signed("POST", NONCE)).unwrap();
    let alice: Hotkey = ALICE.parse().unwrap();
    assert_eq!(claim.check(&alice, AT_MS, 0), Err(Unsigned::Receiver));
    assert_eq!(claim.check(&bob(), AT_MS + 10_000, 0), Ok(()));
    assert_eq!(claim.check(&bob(), AT_MS + 10_001, 0), Err(Unsigned::Time));
    assert_eq!(claim.check(&bob(), AT_MS - 2_000, 0), Ok(()));
    assert_eq!(claim.check(&bob(), AT_MS - 2_001, 0), Err(Unsigned::Time));
    // Signed before this server started: its nonce may have been used with the one before.
    assert_eq!(
        claim.check(&bob(), AT_MS + 5, AT_MS + 1),
        Err(Unsigned::Time)
    );
    let mut fields = signed("POST", NONCE);
    fields.remove("x-bittensor-receiver");
    let open = Claim::read(&fields).unwrap();
    assert_eq!(open.check(&bob(), AT_MS, 0), Err(Unsigned::Receiver));
}

#[test]
fn a_nonce_counts_once_and_the_store_is_bounded() {
    let mut nonces = Nonces::new(2);
    let claim = |nonce: &str| Claim::read(&signed("POST", nonce)).unwrap();
    nonces.spend(&claim("1"), 0).unwrap();
    assert_eq!(
        nonces.spend(&claim("1"), NONCE_MS - 1),
        Err(Unsigned::Replayed)
    );
    nonces.spend(&claim("2"), 0).unwrap();
    assert_eq!(nonces.spend(&claim("3"), 0), Err(Unsigned::Full));
    nonces.spend(&claim("3"), NONCE_MS).unwrap();
}

#[test]
fn epistula_is_accepted_and_bound_to_receiver_time_and_body() {
    let uuid = "9b2e7d1c-7c1b-4a52-9d3f-0b7f3f0f6a11";
    let at = "1752076800000";
    let text = format!("{}.{uuid}.{at}.{BOB}", hex::encode(Sha256::digest(b"")));
    let signature = format!("0x{}", hex::encode(alice().sign(text.as_bytes()).0));
    let claim = Claim::read(&headers(&[
        ("epistula-version", "2"),
        ("epistula-timestamp", at),
        ("epistula-uuid", uuid),
        ("epistula-signed-by", ALICE),
        ("epistula-signed-for", BOB),
        ("epistula-request-signature", &signature),
    ]))
    .unwrap();
    claim.check(&bob(), AT_MS + 8_000, 0).unwrap();
    assert_eq!(claim.check(&bob(), AT_MS + 8_001, 0), Err(Unsigned::Time));
    claim.verify("GET", "/dataset", b"").unwrap();
    assert_eq!(claim.verify("GET", "/dataset", b"x"), Err(Unsigned::Wrong));
}

#[test]
fn a_wallets_text_is_accepted_bare_and_wrapped() {
    let key = alice().public().0;
    for text in ["hello", "<Bytes>hello</Bytes>"] {
        let signature = hex::encode(alice().sign(text.as_bytes()).0);
        verify_text(&key, "hello", &signature).unwrap();
        assert_eq!(verify_text(&key, "hullo", &signature), Err(Unsigned::Wrong));
    }
}

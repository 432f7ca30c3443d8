//! Hotkey files: those of Bittensor's own package, and every way to be wrong.

use assay::chain::{HotkeyPair, LooseMode, WalletError};
use secrecy::SecretString;
use serde_json::{Value, json};
use sp_core::{Pair as _, sr25519};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/wallet")
        .join(name)
}

fn written(content: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("default");
    fs::write(&path, content).unwrap();
    (dir, path)
}

fn loaded(content: impl AsRef<[u8]>) -> Result<HotkeyPair, WalletError> {
    let (_dir, path) = written(content);
    HotkeyPair::load(&path, None).map(|(pair, _)| pair)
}

/// A bare secret with the public key file beside it.
fn loaded_beside(content: &str, public: &str) -> Result<HotkeyPair, WalletError> {
    let (dir, path) = written(content);
    fs::write(dir.path().join("defaultpub.txt"), public).unwrap();
    HotkeyPair::load(&path, None).map(|(pair, _)| pair)
}

fn fixture_json(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixture(name)).unwrap()).unwrap()
}

fn verifies(pair: &HotkeyPair) -> bool {
    let signature = sr25519::Signature::from_raw(pair.sign(b"a message"));
    sr25519::Pair::verify(
        &signature,
        b"a message",
        &sr25519::Public::from_raw(pair.hotkey().0),
    )
}

#[test]
fn files_of_bittensors_own_package_load_and_sign() {
    let expected = [
        ("phrase", "5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV"),
        ("uri", ALICE),
        ("seed", "5DtDLm5rQHShDqojQpsvcN8tRXHVFaecfDoRet1SU6BFD9Fi"),
    ];
    for (name, address) in expected {
        let (pair, _) = HotkeyPair::load(&fixture(name), None).unwrap();
        assert_eq!(pair.hotkey().to_string(), address, "{name}");
        assert!(verifies(&pair), "{name}");
    }
    assert_eq!(
        HotkeyPair::from_uri("//Alice")
            .unwrap()
            .hotkey()
            .to_string(),
        ALICE
    );
}

#[test]
fn each_secret_alone_gives_the_same_key() {
    let whole = fixture_json("phrase");
    for secret in ["secretSeed", "secretPhrase", "privateKey"] {
        let mut file = json!({"ss58Address": whole["ss58Address"]});
        file[secret] = whole[secret].clone();
        let pair = loaded(file.to_string()).unwrap();
        assert_eq!(
            json!(pair.hotkey().to_string()),
            whole["ss58Address"],
            "{secret}"
        );
        assert!(verifies(&pair), "{secret}");
    }
    // The same secret in the ed25519-expanded form of other tools: the first half times 8.
    let canonical = hex::decode(&whole["privateKey"].as_str().unwrap()[2..]).unwrap();
    let key = schnorrkel::SecretKey::from_bytes(&canonical).unwrap();
    let expanded = hex::encode(key.to_ed25519_bytes());
    assert_ne!(expanded, hex::encode(&canonical));
    let file = json!({"privateKey": expanded, "publicKey": whole["publicKey"]});
    assert!(verifies(&loaded(file.to_string()).unwrap()));
}

#[test]
fn a_secret_of_another_key_is_refused() {
    let mut file = fixture_json("phrase");
    let alice = fixture_json("uri");
    for name in ["publicKey", "accountId", "ss58Address"] {
        file[name] = alice[name].clone();
    }
    let error = loaded(file.to_string()).unwrap_err().to_string();
    assert!(error.contains("another public key"), "{error}");
    let mut torn = fixture_json("uri");
    torn["ss58Address"] = fixture_json("phrase")["ss58Address"].clone();
    let error = loaded(torn.to_string()).unwrap_err().to_string();
    assert!(error.contains("disagree"), "{error}");
    let mut nameless = fixture_json("phrase");
    for name in ["publicKey", "accountId", "ss58Address"] {
        nameless.as_object_mut().unwrap().remove(name);
    }
    let error = loaded(nameless.to_string()).unwrap_err().to_string();
    assert!(error.contains("no public key to compare"), "{error}");
}

#[test]
fn a_bare_secret_is_compared_with_the_public_key_file_beside_it() {
    let whole = fixture_json("phrase");
    let public = fs::read_to_string(fixture("phrasepub.txt")).unwrap();
    let address = whole["ss58Address"].as_str().unwrap();
    let text = |key: &str| whole[key].as_str().unwrap().to_owned();
    let canonical = hex::decode(&text("privateKey")[2..]).unwrap();
    let key = schnorrkel::SecretKey::from_bytes(&canonical).unwrap();
    let forms = [
        text("secretSeed"),
        text("secretSeed")[2..].to_owned(),
        text("secretPhrase") + "\n",
        text("privateKey"),
        hex::encode(key.to_ed25519_bytes()),
    ];
    for form in &forms {
        for public in [public.as_str(), address] {
            let pair = loaded_beside(form, public).unwrap();
            assert_eq!(pair.hotkey().to_string(), address);
            assert!(verifies(&pair));
        }
        let error = loaded_beside(form, ALICE).unwrap_err().to_string();
        assert!(error.contains("another public key"), "{error}");
        let error = loaded(form).unwrap_err().to_string();
        assert!(error.contains("SS58 address into"), "{error}");
        let error = loaded_beside(form, "nobody").unwrap_err().to_string();
        assert!(error.contains("no SS58 address"), "{error}");
    }
}

/// The package's own encryption, with the password that made it, another, and none.
#[test]
fn an_encrypted_file_opens_with_its_password() {
    let path = fixture("encrypted-phrase");
    let password = |text: &str| Some(SecretString::from(text));
    let (pair, _) = HotkeyPair::load(&path, password("public-test-password").as_ref()).unwrap();
    assert_eq!(
        json!(pair.hotkey().to_string()),
        fixture_json("phrase")["ss58Address"]
    );
    assert!(verifies(&pair));
    let error = HotkeyPair::load(&path, password("another").as_ref()).unwrap_err();
    assert!(
        matches!(error, WalletError::WrongPassword { .. }),
        "{error}"
    );
    assert!(!format!("{error} {error:?}").contains("another"));
    let error = HotkeyPair::load(&path, None).unwrap_err();
    assert!(
        matches!(error, WalletError::NeedsPassword { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("password_env"), "{error}");
    let (_dir, short) = written(b"$NACLshort");
    let error = HotkeyPair::load(&short, password("x").as_ref()).unwrap_err();
    assert!(
        matches!(error, WalletError::WrongPassword { .. }),
        "{error}"
    );
}

#[test]
fn other_forms_are_named_with_the_command_that_converts_them() {
    let (_dir, fernet) = written("gAAAAABh1234");
    for (path, format) in [(fixture("vault"), "Ansible"), (fernet, "Fernet")] {
        let error = HotkeyPair::load(&path, Some(&"x".into())).unwrap_err();
        assert!(
            matches!(&error, WalletError::Encrypted { format: f, .. } if f.contains(format)),
            "{error}"
        );
        let command = format!("Keyfile('{}').decrypt()", path.display());
        assert!(error.to_string().contains(&command), "{error}");
    }
    let export = json!({"encoded": "x", "encoding": {}, "address": ALICE}).to_string();
    let error = loaded(export).unwrap_err().to_string();
    assert!(error.contains("create_from_encrypted_json"), "{error}");
}

#[test]
fn what_is_no_hotkey_is_refused_without_echoing_it() {
    let secret = "0xfac7959dbfe72f052e5a0c3c8d6530f202b02fd8f9f5ca3580ec8deb7797479e";
    let cases = [
        secret.to_owned(),
        format!("{{\"secretSeed\": \"{secret}\", \"ss58Address\": \"{ALICE}\""),
        format!("{{\"secretSeed\": \"{secret}\", \"ss58Address\": \"{ALICE}\"}}"),
        format!("{{\"secretSeed\": {{\"{secret}\": 1}}, \"ss58Address\": \"{ALICE}\"}}"),
        json!({"encoded": "x", "encoding": {}, "address": ALICE}).to_string(),
        json!({"ss58Address": ALICE}).to_string(),
        json!({"ss58Address": ALICE, "cryptoType": 0, "secretSeed": secret}).to_string(),
        json!({"ss58Address": ALICE, "signingScheme": "ml-dsa", "secretSeed": secret}).to_string(),
        json!({"ss58Address": "5G", "secretSeed": secret}).to_string(),
        "x".repeat(20_000),
        String::new(),
    ];
    for content in cases {
        let error = loaded(&content).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("fac7959d"), "{shown}");
    }
    let pair = HotkeyPair::from_uri("//Alice").unwrap();
    assert_eq!(format!("{pair:?}"), format!("HotkeyPair({ALICE})"));
    assert!(!format!("{:?}", HotkeyPair::from_uri("no uri").unwrap_err()).contains("no uri"));
}

#[test]
fn a_coldkey_is_never_opened() {
    let dir = tempfile::tempdir().unwrap();
    let cold = dir.path().join("coldkey");
    fs::copy(fixture("phrase"), &cold).unwrap();
    let disguised = dir.path().join("default");
    symlink(&cold, &disguised).unwrap();
    for path in [cold, disguised, dir.path().join("coldkeypub.txt")] {
        let error = HotkeyPair::load(&path, None).unwrap_err();
        assert!(matches!(error, WalletError::Coldkey { .. }), "{error}");
    }
    let missing = HotkeyPair::load(&dir.path().join("gone"), None).unwrap_err();
    assert!(matches!(missing, WalletError::Io { .. }), "{missing}");
}

#[test]
fn a_loose_mode_is_told_and_does_not_stop() {
    let (_dir, path) = written(fs::read(fixture("phrase")).unwrap());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(HotkeyPair::load(&path, None).unwrap().1, None);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let warning = HotkeyPair::load(&path, None).unwrap().1;
    assert_eq!(warning, Some(LooseMode { mode: 0o644 }));
    assert!(warning.unwrap().to_string().contains("chmod 600"));
}

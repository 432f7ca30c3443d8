//! Bearer tokens: 256 random bits, known here by their SHA-256 alone.
//!
//! A journal of JSON lines keeps them over restarts. It holds digests, keys and times, never a token.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::bittensor::{Coldkey, Hotkey};
use crate::dataset_api::client::Class;

const START: &str = "assay_";
/// Live tokens of one key; one more ends the oldest.
const PER_SUBJECT: usize = 4;

/// Whose token it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Got by signing with a hotkey; its class is looked up at each use.
    Hotkey(Hotkey),
    /// Got by signing with a coldkey.
    Coldkey(Coldkey),
    /// Given out by the operator.
    Issued {
        /// The class it grants.
        class: Class,
        /// The group it belongs to.
        group: String,
        /// Whom the operator gave it to.
        note: String,
    },
}

/// The first 16 hex digits of a token's digest: names it without giving it away.
pub type TokenId = String;

/// A live token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Whose.
    pub subject: Subject,
    /// When it was issued, unix milliseconds.
    pub issued_ms: u64,
    /// When it ends, unix milliseconds.
    pub expires_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Issued { digest: String, token: Token },
    Revoked { digest: String },
}

/// All live tokens.
#[derive(Debug)]
pub struct Tokens {
    live: HashMap<[u8; 32], Token>,
    path: Option<PathBuf>,
    most: usize,
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn id(digest: &[u8; 32]) -> TokenId {
    hex::encode(&digest[..8])
}

impl Tokens {
    /// Tokens that live in memory alone.
    #[must_use]
    pub fn volatile(most: usize) -> Self {
        Self {
            live: HashMap::new(),
            path: None,
            most,
        }
    }

    /// The tokens of the journal at `path`, which is written anew without those that ended.
    ///
    /// # Errors
    /// When the journal cannot be read or written.
    pub fn open(path: &Path, most: usize, now_ms: u64) -> io::Result<Self> {
        let mut tokens = Self {
            live: HashMap::new(),
            path: Some(path.to_owned()),
            most,
        };
        match File::open(path) {
            Ok(file) => tokens.replay(BufReader::new(file))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        tokens.live.retain(|_, token| token.expires_ms > now_ms);
        let draft = path.with_extension("draft");
        let mut file = private(&draft, true)?;
        for (digest, token) in &tokens.live {
            let digest = hex::encode(digest);
            let token = token.clone();
            write_line(&mut file, &Line::Issued { digest, token })?;
        }
        file.sync_all()?;
        std::fs::rename(&draft, path)?;
        Ok(tokens)
    }

    /// A last line torn by a crash is passed over: its token was never handed out.
    fn replay(&mut self, reader: impl BufRead) -> io::Result<()> {
        for line in reader.lines() {
            let Ok(line) = serde_json::from_str(&line?) else {
                continue;
            };
            let mut bytes = [0; 32];
            match line {
                Line::Issued { digest, token } => {
                    if hex::decode_to_slice(&digest, &mut bytes).is_ok() {
                        self.live.insert(bytes, token);
                    }
                }
                Line::Revoked { digest } => {
                    if hex::decode_to_slice(&digest, &mut bytes).is_ok() {
                        self.live.remove(&bytes);
                    }
                }
            }
        }
        Ok(())
    }

    fn note(&self, line: &Line) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let mut file = private(path, false)?;
        write_line(&mut file, line)?;
        file.sync_data()
    }

    /// Issues a token and gives its text, the only time it is seen. The oldest beyond
    /// four of the same key ends.
    ///
    /// # Errors
    /// When the disk refuses, or too many tokens are live.
    pub fn issue(&mut self, token: Token, now_ms: u64) -> io::Result<(String, TokenId)> {
        self.live.retain(|_, token| token.expires_ms > now_ms);
        let of_key = |other: &&Token| {
            other.subject == token.subject && !matches!(other.subject, Subject::Issued { .. })
        };
        if self.live.values().filter(of_key).count() >= PER_SUBJECT {
            let mut same: Vec<_> = self.live.iter().filter(|(_, t)| of_key(t)).collect();
            same.sort_by_key(|(digest, t)| (t.issued_ms, **digest));
            let oldest = *same[0].0;
            self.end(&oldest)?;
        }
        if self.live.len() >= self.most {
            return Err(io::Error::other("too many tokens are live"));
        }
        let text = format!(
            "{START}{}",
            URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
        );
        let digest = digest(&text);
        self.note(&Line::Issued {
            digest: hex::encode(digest),
            token: token.clone(),
        })?;
        self.live.insert(digest, token);
        Ok((text, id(&digest)))
    }

    fn end(&mut self, digest: &[u8; 32]) -> io::Result<()> {
        let gone = hex::encode(digest);
        self.note(&Line::Revoked { digest: gone })?;
        self.live.remove(digest);
        Ok(())
    }

    /// The live token with this text.
    #[must_use]
    pub fn find(&self, text: &str, now_ms: u64) -> Option<&Token> {
        if !text.starts_with(START) || text.len() > 64 {
            return None;
        }
        let token = self.live.get(&digest(text))?;
        (token.expires_ms > now_ms).then_some(token)
    }

    /// Ends the tokens that `which` picks by id and content, and says how many.
    ///
    /// # Errors
    /// When the disk refuses; those ended so far stay ended.
    pub fn revoke(&mut self, which: impl Fn(&str, &Token) -> bool) -> io::Result<usize> {
        let picked = self.live.iter().filter(|(d, t)| which(&id(d), t));
        let picked: Vec<_> = picked.map(|(digest, _)| *digest).collect();
        for digest in &picked {
            self.end(digest)?;
        }
        Ok(picked.len())
    }

    /// Live tokens.
    #[must_use]
    pub fn count(&self) -> usize {
        self.live.len()
    }
}

fn private(path: &Path, anew: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600);
    if anew {
        options.write(true).truncate(true);
    } else {
        options.append(true);
    }
    options.open(path)
}

fn write_line(file: &mut File, line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(n: u8, issued_ms: u64) -> Token {
        Token {
            subject: Subject::Hotkey(Hotkey([n; 32])),
            issued_ms,
            expires_ms: 1_000,
        }
    }

    #[test]
    fn tokens_live_over_restarts_expire_and_are_never_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.jsonl");
        let mut tokens = Tokens::open(&path, 10, 0).unwrap();
        let (text, id) = tokens.issue(token(1, 0), 0).unwrap();
        let (other, _) = tokens.issue(token(2, 0), 0).unwrap();
        assert_eq!(
            tokens
                .revoke(|_, t| t.subject == token(2, 0).subject)
                .unwrap(),
            1
        );
        drop(tokens);
        let file = std::fs::read_to_string(&path).unwrap();
        assert!(!file.contains(&text) && !file.contains(&text[START.len()..]));
        // A line that was being written when the process was killed.
        std::fs::write(&path, format!("{file}{{\"issued\":{{\"dig")).unwrap();
        let tokens = Tokens::open(&path, 10, 0).unwrap();
        assert!(tokens.find(&text, 999).is_some());
        assert_eq!(id, super::id(&digest(&text)));
        assert!(tokens.find(&text, 1_000).is_none());
        assert!(tokens.find(&other, 0).is_none());
        assert!(tokens.find("assay_x", 0).is_none());
        assert_eq!(Tokens::open(&path, 10, 1_000).unwrap().count(), 0);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&path).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_has_few_tokens_and_all_are_bounded() {
        let mut tokens = Tokens::volatile(6);
        let texts: Vec<_> = (0..5)
            .map(|n| tokens.issue(token(1, n), 0).unwrap().0)
            .collect();
        assert!(tokens.find(&texts[0], 0).is_none());
        assert!(texts[1..].iter().all(|text| tokens.find(text, 0).is_some()));
        tokens.issue(token(2, 0), 0).unwrap();
        tokens.issue(token(3, 0), 0).unwrap();
        assert!(tokens.issue(token(4, 0), 0).is_err());
        tokens
            .issue(
                Token {
                    expires_ms: 2_000,
                    ..token(4, 0)
                },
                1_000,
            )
            .unwrap();
    }
}

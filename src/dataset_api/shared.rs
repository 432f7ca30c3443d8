//! What the lanes share: read often, written seldom and shortly.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use sha2::{Digest, Sha256};

use super::client::{Class, Client, NO_GROUP};
use super::identity::challenge::Challenges;
use super::identity::registry::Registry;
use super::identity::tokens::{Subject, Token, Tokens};
use super::prefix::Prefix;
use super::rules::Rules;
use super::seeing::day::{Report, day_of};
use super::seeing::traffic::Traffic;
use super::settings::Settings;
use crate::bittensor::Hotkey;
use crate::clock::now_ms;

/// Tokens in all; nonces and challenges remembered per store.
const TOKENS_MAX: usize = 100_000;
pub(super) const NONCES_MAX: usize = 20_000;

/// What the lanes share: read often, written seldom and shortly.
#[derive(Debug)]
pub struct Shared {
    pub(super) settings: Settings,
    pub(super) tokens: RwLock<Tokens>,
    registry: RwLock<Arc<Registry>>,
    pub(super) rules: RwLock<Rules>,
    pub(super) challenges: Mutex<Challenges>,
    pub(super) traffic: Traffic,
    pub(super) started_ms: u64,
}

pub(super) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Opens what is kept in the state folder.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(settings: Settings) -> std::io::Result<Self> {
        let now = now_ms();
        let (tokens, rules, report) = match &settings.state {
            Some(folder) => {
                std::fs::create_dir_all(folder)?;
                let tokens = Tokens::open(&folder.join("tokens.jsonl"), TOKENS_MAX, now)?;
                (
                    tokens,
                    Rules::open(folder)?,
                    Report::load(folder, day_of(now)),
                )
            }
            None => {
                let day = day_of(now);
                let report = Report {
                    day,
                    ..Report::default()
                };
                (Tokens::volatile(TOKENS_MAX), Rules::volatile(), report)
            }
        };
        let standing = &settings.standing;
        Ok(Self {
            tokens: RwLock::new(tokens),
            registry: RwLock::new(Arc::new(Registry::new(&[], standing))),
            rules: RwLock::new(rules),
            challenges: Mutex::new(Challenges::new(NONCES_MAX)),
            traffic: Traffic::new(report, settings.log_every),
            started_ms: now,
            settings,
        })
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What the metagraphs say, as of the last reading.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        Arc::clone(&read(&self.registry))
    }

    /// Replaces what the metagraphs say.
    pub fn set_registry(&self, registry: Registry) {
        *write(&self.registry) = Arc::new(registry);
    }

    pub(super) fn anonymous(prefix: Prefix) -> Client {
        Client {
            class: Class::Anonymous,
            group: NO_GROUP,
            hotkey: None,
            coldkey: None,
            issued: None,
            prefix,
        }
    }

    /// The client that proved `hotkey`.
    #[must_use]
    pub fn by_hotkey(&self, hotkey: Hotkey, prefix: Prefix) -> Client {
        let registry = self.registry();
        let member = registry.hotkey(&hotkey);
        Client {
            class: member.map_or(Class::Coldkey, |m| m.class),
            group: member.map_or(NO_GROUP, |m| m.group),
            hotkey: Some(hotkey),
            coldkey: member.and_then(|m| m.coldkey),
            ..Self::anonymous(prefix)
        }
    }

    pub(super) fn by_token(&self, token: &Token, text: &str, prefix: Prefix) -> Client {
        match &token.subject {
            Subject::Hotkey(hotkey) => self.by_hotkey(*hotkey, prefix),
            Subject::Coldkey(coldkey) => Client {
                class: Class::Coldkey,
                group: self.registry().coldkey(coldkey).unwrap_or(NO_GROUP),
                coldkey: Some(*coldkey),
                ..Self::anonymous(prefix)
            },
            Subject::Issued { class, group, .. } => Client {
                class: *class,
                group: self.settings.group_name(group),
                issued: Some(Sha256::digest(text).into()),
                ..Self::anonymous(prefix)
            },
        }
    }
}

//! What the operator closed off or limited while the server runs. Kept on disk, every change audited.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::client::{Class, Client};
use super::gcra::Quota;
use super::prefix::Prefix;
use crate::bittensor::{Coldkey, Hotkey};

/// Most entries of each kind: they are looked through at every request.
const ENTRIES_MAX: usize = 256;

/// Whom a rule is about. Text form `kind:name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A client group by name.
    Group(String),
    /// All clients of a class.
    Class(Class),
    /// One hotkey.
    Hotkey(Hotkey),
    /// One coldkey with all its hotkeys.
    Coldkey(Coldkey),
    /// A network of any size.
    Prefix(Prefix),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Class(class) => write!(f, "class:{}", class.as_str()),
            Self::Hotkey(key) => write!(f, "hotkey:{key}"),
            Self::Coldkey(key) => write!(f, "coldkey:{key}"),
            Self::Prefix(prefix) => write!(f, "prefix:{prefix}"),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form =
            "write it as group:NAME, class:NAME, hotkey:ADDRESS, coldkey:ADDRESS or prefix:NETWORK";
        let (kind, name) = text.split_once(':').ok_or_else(|| form.to_owned())?;
        match kind {
            "group" if !name.is_empty() && name.len() <= 64 => Ok(Self::Group(name.to_owned())),
            "class" => Class::ALL
                .into_iter()
                .find(|class| class.as_str() == name)
                .map(Self::Class)
                .ok_or_else(|| {
                    "the classes are scorer, validator, miner, coldkey, anonymous".to_owned()
                }),
            "hotkey" => name
                .parse()
                .map(Self::Hotkey)
                .map_err(|e: crate::bittensor::AddressError| e.to_string()),
            "coldkey" => name
                .parse()
                .map(Self::Coldkey)
                .map_err(|e: crate::bittensor::AddressError| e.to_string()),
            "prefix" => name.parse().map(Self::Prefix),
            _ => Err(form.to_owned()),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Target {
    fn covers(&self, client: &Client) -> bool {
        match self {
            Self::Group(name) => name == client.group,
            Self::Class(class) => *class == client.class,
            Self::Hotkey(key) => client.hotkey == Some(*key),
            Self::Coldkey(key) => client.coldkey == Some(*key),
            Self::Prefix(prefix) => prefix.covers(&client.prefix),
        }
    }
}

/// Closed off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Whom.
    pub target: Target,
    /// Until when, unix milliseconds; for good when absent.
    pub until_ms: Option<u64>,
    /// Why; goes to the audit, not to the client.
    pub reason: String,
}

/// Another quota than the class has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Whom.
    pub target: Target,
    /// At once.
    pub burst: u32,
    /// In the long run.
    pub per_hour: u32,
}

impl Limit {
    /// As a quota.
    #[must_use]
    pub fn quota(&self) -> Quota {
        Quota::new(self.burst, self.per_hour, Duration::from_hours(1))
    }
}

/// A change that the operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Change {
    /// Close off.
    Block(Block),
    /// Open again.
    Unblock {
        /// Whom.
        target: Target,
    },
    /// Set another quota.
    Limit(Limit),
    /// Go back to the class's quota.
    Unlimit {
        /// Whom.
        target: Target,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Kept {
    blocks: Vec<Block>,
    limits: Vec<Limit>,
}

/// The rules in force.
#[derive(Debug)]
pub struct Rules {
    kept: Kept,
    folder: Option<PathBuf>,
}

const FILE: &str = "rules.json";
const AUDIT: &str = "audit.jsonl";

impl Rules {
    /// No rules, kept nowhere.
    #[must_use]
    pub fn volatile() -> Self {
        Self {
            kept: Kept::default(),
            folder: None,
        }
    }

    /// The rules of `folder`.
    ///
    /// # Errors
    /// When the file cannot be read or understood: serving without the operator's blocks would be
    /// worse than not serving.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let kept = match std::fs::read(folder.join(FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(e) => return Err(e),
        };
        let folder = Some(folder.to_owned());
        Ok(Self { kept, folder })
    }

    /// Whether `client` is closed off at `now_ms`.
    #[must_use]
    pub fn is_blocked(&self, client: &Client, now_ms: u64) -> bool {
        let live = |block: &&Block| block.until_ms.is_none_or(|until| until > now_ms);
        let mut blocks = self.kept.blocks.iter().filter(live);
        blocks.any(|block| block.target.covers(client))
    }

    /// The quota set for `client` itself: by hotkey, coldkey, network, then class.
    #[must_use]
    pub fn limit(&self, client: &Client) -> Option<Quota> {
        let rank = |target: &Target| match target {
            Target::Hotkey(_) => 0,
            Target::Coldkey(_) => 1,
            Target::Prefix(_) => 2,
            Target::Class(_) => 3,
            Target::Group(_) => 4,
        };
        let limits = self.kept.limits.iter();
        let fitting = limits.filter(|limit| rank(&limit.target) < 4 && limit.target.covers(client));
        fitting
            .min_by_key(|limit| rank(&limit.target))
            .map(Limit::quota)
    }

    /// The quota set for a group as a whole.
    #[must_use]
    pub fn group_limit(&self, group: &str) -> Option<Quota> {
        let is_group =
            |limit: &&Limit| matches!(&limit.target, Target::Group(name) if name == group);
        self.kept.limits.iter().find(is_group).map(Limit::quota)
    }

    /// Makes a change: first the audit's line, then the rules, then the file.
    ///
    /// # Errors
    /// When the disk refuses or there are too many entries; nothing is changed then.
    pub fn change(&mut self, change: &Change, actor: &str, now_ms: u64) -> io::Result<()> {
        let mut next = self.kept.clone();
        match change {
            Change::Block(block) => {
                next.blocks
                    .retain(|b| b.target != block.target && b.until_ms.is_none_or(|u| u > now_ms));
                next.blocks.push(block.clone());
            }
            Change::Unblock { target } => next.blocks.retain(|b| b.target != *target),
            Change::Limit(limit) => {
                next.limits.retain(|l| l.target != limit.target);
                next.limits.push(limit.clone());
            }
            Change::Unlimit { target } => next.limits.retain(|l| l.target != *target),
        }
        if next.blocks.len() > ENTRIES_MAX || next.limits.len() > ENTRIES_MAX {
            let reason = format!("at most {ENTRIES_MAX} blocks and limits; take some away first");
            return Err(io::Error::other(reason));
        }
        self.audit(&serde_json::to_value(change)?, actor, now_ms)?;
        if let Some(folder) = &self.folder {
            let draft = folder.join("rules.draft");
            std::fs::write(&draft, serde_json::to_vec_pretty(&next)?)?;
            std::fs::File::open(&draft)?.sync_all()?;
            std::fs::rename(&draft, folder.join(FILE))?;
        }
        self.kept = next;
        Ok(())
    }

    /// Writes one line of the audit, durably.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn audit(&self, what: &serde_json::Value, actor: &str, now_ms: u64) -> io::Result<()> {
        tracing::info!(%what, ?actor, "the operator changed the access rules");
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let mut options = OpenOptions::new();
        let mut file = options
            .create(true)
            .append(true)
            .mode(0o600)
            .open(folder.join(AUDIT))?;
        let line = serde_json::json!({ "at_ms": now_ms, "actor": actor, "what": what });
        file.write_all(format!("{line}\n").as_bytes())?;
        file.sync_data()
    }

    /// The rules as JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(&self.kept).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(group: &'static str, key: u8) -> Client {
        Client {
            class: Class::Miner,
            group,
            hotkey: Some(Hotkey([key; 32])),
            coldkey: Some(Coldkey([key + 1; 32])),
            issued: None,
            prefix: "10.1.2.3".parse().unwrap(),
        }
    }

    fn block(target: &str, until_ms: Option<u64>) -> Change {
        let target = target.parse().unwrap();
        Change::Block(Block {
            target,
            until_ms,
            reason: "test".into(),
        })
    }

    #[test]
    fn one_group_is_closed_off_alone_audited_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut rules = Rules::open(folder.path()).unwrap();
        rules.change(&block("group:sn11", None), "ops", 5).unwrap();
        rules
            .change(&block("prefix:10.1.0.0/16", Some(9)), "ops", 5)
            .unwrap();
        let rules = Rules::open(folder.path()).unwrap();
        assert!(rules.is_blocked(&client("sn11", 1), 10));
        assert!(rules.is_blocked(&client("sn58", 1), 8));
        assert!(!rules.is_blocked(&client("sn58", 1), 9));
        let audit = std::fs::read_to_string(folder.path().join(AUDIT)).unwrap();
        assert_eq!(audit.lines().count(), 2);
        assert!(audit.contains("group:sn11"), "{audit}");
        let mut rules = rules;
        let target = "group:sn11".parse().unwrap();
        rules
            .change(&Change::Unblock { target }, "ops", 11)
            .unwrap();
        assert!(!rules.is_blocked(&client("sn11", 1), 12));
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        assert!(Rules::open(folder.path()).is_err());
    }

    #[test]
    fn the_narrowest_limit_holds() {
        let mut rules = Rules::volatile();
        let key = Hotkey([1; 32]);
        for (target, burst) in [
            ("class:miner", 7),
            ("prefix:10.0.0.0/8", 8),
            (&*format!("hotkey:{key}"), 9),
            ("group:sn11", 5),
        ] {
            let target = target.parse().unwrap();
            let limit = Limit {
                target,
                burst,
                per_hour: 1,
            };
            rules.change(&Change::Limit(limit), "ops", 0).unwrap();
        }
        assert_eq!(rules.limit(&client("sn11", 1)).unwrap().burst(), 9);
        assert_eq!(rules.limit(&client("sn11", 2)).unwrap().burst(), 8);
        assert_eq!(rules.group_limit("sn11").unwrap().burst(), 5);
        assert!(rules.group_limit("sn58").is_none());
        for text in ["", "group:", "class:king", "hotkey:5x", "prefix:1", "sn11"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}

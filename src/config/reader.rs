//! Reads checked values out of parsed TOML and remembers every problem with its key and line.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::{self, Debug};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::value::{self, Setting};

/// Keys that would hold a secret itself.
const SECRET_KEYS: [&str; 9] = [
    "token",
    "api_key",
    "key",
    "password",
    "secret",
    "seed_phrase",
    "mnemonic",
    "private_key",
    "access_token",
];

/// One thing that is wrong in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1; absent when a whole section is missing.
    pub line: Option<usize>,
    /// Dotted path of the key, such as `chain.netuid`.
    pub key: String,
    /// What is wrong and what is expected.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.reason)
    }
}

/// Collects the problems of one file.
#[derive(Debug)]
pub(super) struct Report<'t> {
    text: &'t str,
    base: &'t Path,
    problems: RefCell<Vec<Problem>>,
}

impl<'t> Report<'t> {
    /// A report on `text`, whose relative paths start in `base`.
    pub(super) fn new(text: &'t str, base: &'t Path) -> Self {
        Self {
            text,
            base,
            problems: RefCell::default(),
        }
    }

    /// Notes a problem at the byte offset `at`.
    pub(super) fn add(&self, at: Option<usize>, key: impl Into<String>, reason: impl fmt::Display) {
        let line = at.map(|at| {
            let before = self.text.get(..at).unwrap_or(self.text);
            before.matches('\n').count() + 1
        });
        self.problems.borrow_mut().push(Problem {
            line,
            key: key.into(),
            reason: reason.to_string(),
        });
    }

    /// All problems in the order of the file.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|p| p.line.unwrap_or(usize::MAX));
        problems
    }
}

/// One table of the file. Every key is read through it; [`Section::finish`] reports those that
/// nobody asked for.
pub(super) struct Section<'r> {
    name: String,
    at: Option<usize>,
    table: Option<&'r DeTable<'r>>,
    known: BTreeSet<&'static str>,
    report: &'r Report<'r>,
}

impl<'r> Section<'r> {
    /// The file's top level.
    pub(super) fn root(table: &'r DeTable<'r>, report: &'r Report<'r>) -> Self {
        Self {
            name: String::new(),
            at: Some(0),
            table: Some(table),
            known: BTreeSet::new(),
            report,
        }
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.name)
        }
    }

    /// Notes a problem with `key`, at its line when it is there.
    pub(super) fn problem(&self, key: &str, reason: impl fmt::Display) {
        let at = self.peek(key).map_or(self.at, |v| Some(v.span().start));
        self.report.add(at, self.path(key), reason);
    }

    fn peek(&self, key: &str) -> Option<&'r Spanned<DeValue<'r>>> {
        self.table?
            .iter()
            .find_map(|(name, value)| (name.get_ref() == key).then_some(value))
    }

    fn take(&mut self, key: &'static str) -> Option<&'r Spanned<DeValue<'r>>> {
        self.known.insert(key);
        self.peek(key)
    }

    /// Whether the file has this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.peek(key).is_some()
    }

    /// The value of `key`; `None` when it is absent or wrong (which is noted).
    pub(super) fn optional<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        let value = self.take(key)?;
        T::read(value.get_ref())
            .map_err(|reason| self.problem(key, reason))
            .ok()
    }

    /// The value of `key`, which must be there.
    pub(super) fn required<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        if self.take(key).is_none() {
            self.problem(key, format!("is missing; it needs {}", T::EXPECTED));
            return None;
        }
        self.optional(key)
    }

    /// The value of `key`, or `default`.
    pub(super) fn or<T: Setting>(&mut self, key: &'static str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// A value within `range`, or `default`.
    pub(super) fn within<T: Setting + PartialOrd + Debug>(
        &mut self,
        key: &'static str,
        default: T,
        range: RangeInclusive<T>,
    ) -> T {
        match self.optional::<T>(key) {
            Some(value) if range.contains(&value) => value,
            Some(value) => {
                let (low, high) = (range.start(), range.end());
                self.problem(key, format!("is {value:?}, must be {low:?} to {high:?}"));
                default
            }
            None => default,
        }
    }

    /// A value within `range`; `None` when it is absent or outside (which is noted).
    pub(super) fn optional_within<T: Setting + PartialOrd + Debug>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
    ) -> Option<T> {
        let value = self.optional::<T>(key)?;
        if range.contains(&value) {
            return Some(value);
        }
        let (low, high) = (range.start(), range.end());
        self.problem(key, format!("is {value:?}, must be {low:?} to {high:?}"));
        None
    }

    /// A duration such as `"30s"` of at least 1 ms and at most `most`.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        most: Duration,
    ) -> Duration {
        self.within(key, default, Duration::from_millis(1)..=most)
    }

    /// A path; a relative one starts in the configuration file's folder, `~/` in the home folder.
    pub(super) fn path_value(&mut self, key: &'static str) -> Option<PathBuf> {
        let text: String = self.required(key)?;
        self.resolve(key, &text)
    }

    /// As [`Self::path_value`], but the key may be absent.
    pub(super) fn optional_path(&mut self, key: &'static str) -> Option<PathBuf> {
        let text: String = self.optional(key)?;
        self.resolve(key, &text)
    }

    fn resolve(&self, key: &str, text: &str) -> Option<PathBuf> {
        value::resolve_path(text, self.report.base)
            .map_err(|reason| self.problem(key, reason))
            .ok()
    }

    /// The sub-table `key`; an absent one reads as empty, so that its missing keys are noted.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'r> {
        let value = self.take(key);
        let table = value.and_then(|v| v.get_ref().as_table());
        if value.is_some() && table.is_none() {
            self.problem(key, format!("must be a table: [{key}]"));
        }
        Section {
            name: self.path(key),
            at: value.map(|v| v.span().start),
            table,
            known: BTreeSet::new(),
            report: self.report,
        }
    }

    fn entries(&mut self, key: &'static str) -> &'r [Spanned<DeValue<'r>>] {
        let Some(value) = self.take(key) else {
            return &[];
        };
        if let Some(array) = value.get_ref().as_array() {
            return array;
        }
        self.problem(key, format!("must be a list of tables: [[{key}]]"));
        &[]
    }

    /// The tables of `[[key]]`.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'r>> {
        let mut sections = Vec::new();
        for (index, value) in self.entries(key).iter().enumerate() {
            let table = value.get_ref().as_table();
            if table.is_none() {
                self.problem(key, format!("must be a list of tables: [[{key}]]"));
                continue;
            }
            sections.push(Section {
                name: format!("{}[{index}]", self.path(key)),
                at: Some(value.span().start),
                table,
                known: BTreeSet::new(),
                report: self.report,
            });
        }
        sections
    }

    /// The tables of `[[key]]` as values of a type that knows and checks its own fields; `check`
    /// gives the problems of one value, each with its key below the table.
    pub(super) fn values<T: DeserializeOwned>(
        &mut self,
        key: &'static str,
        check: impl Fn(&T) -> Vec<(String, String)>,
    ) -> Vec<T> {
        let mut values = Vec::new();
        for (index, value) in self.entries(key).iter().enumerate() {
            let path = format!("{}[{index}]", self.path(key));
            match T::deserialize(ValueDeserializer::from(value.clone())) {
                Ok(read) => {
                    for (below, reason) in check(&read) {
                        let at = locate(value, &below);
                        self.report.add(Some(at), format!("{path}.{below}"), reason);
                    }
                    values.push(read);
                }
                Err(error) => {
                    let start = value.span().start;
                    let at = error.span().map_or(start, |span| span.start);
                    self.report.add(Some(at), path, error.message().trim());
                }
            }
        }
        values
    }

    /// Accepts `keys` unread: sections of another role in the same file.
    pub(super) fn ignore(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        let unknown = self.table.into_iter().flat_map(|table| table.iter());
        for (key, value) in unknown {
            let name = key.get_ref().as_ref();
            if self.known.contains(name) {
                continue;
            }
            let at = Some(key.span().start);
            let path = self.path(name);
            if SECRET_KEYS.contains(&name) && !value.get_ref().is_table() {
                self.report.add(at, path, value::SECRET_IN_FILE);
            } else {
                let known: Vec<_> = self.known.iter().copied().collect();
                let reason = format!("unknown key; known here: {}", known.join(", "));
                self.report.add(at, path, reason);
            }
        }
    }
}

/// Offset of the value at the dotted `path` below `value`, or of the deepest table on its way.
fn locate(value: &Spanned<DeValue<'_>>, path: &str) -> usize {
    let mut here = value;
    for name in path.split('.') {
        let table = here.get_ref().as_table();
        let next = table.and_then(|table| {
            let mut entries = table.iter();
            entries.find_map(|(key, value)| (key.get_ref() == name).then_some(value))
        });
        match next {
            Some(next) => here = next,
            None => break,
        }
    }
    here.span().start
}

//! State in memory: one ordered map of the present, and for each kept block what it overwrote, so
//! that older states are read without copies.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

/// Key → value, `None` where the key is absent.
pub(super) type Diff = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// The present state, the open block's write log and the undo records of the kept blocks.
#[derive(Debug, Default)]
pub(super) struct State {
    live: BTreeMap<Vec<u8>, Vec<u8>>,
    log: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    undo: VecDeque<Diff>,
    keep: usize,
}

impl State {
    /// An empty state that keeps the undo records of `keep` blocks.
    pub(super) fn new(keep: usize) -> Self {
        Self {
            keep,
            ..Self::default()
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.live.get(key).map(Vec::as_slice)
    }

    pub(super) fn put(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let old = match value {
            Some(value) => self.live.insert(key.clone(), value),
            None => self.live.remove(&key),
        };
        self.log.push((key, old));
    }

    /// A mark to which [`State::rollback`] returns.
    pub(super) fn mark(&self) -> usize {
        self.log.len()
    }

    /// Takes back every write since `mark`.
    pub(super) fn rollback(&mut self, mark: usize) {
        while self.log.len() > mark {
            let Some((key, old)) = self.log.pop() else {
                return;
            };
            match old {
                Some(value) => self.live.insert(key, value),
                None => self.live.remove(&key),
            };
        }
    }

    /// Ends the open block and returns what it changed.
    pub(super) fn commit(&mut self) -> Diff {
        let mut undo = Diff::new();
        for (key, old) in self.log.drain(..) {
            undo.entry(key).or_insert(old);
        }
        undo.retain(|key, old| self.live.get(key) != old.as_ref());
        let changed = undo
            .keys()
            .map(|key| (key.clone(), self.live.get(key).cloned()))
            .collect();
        self.undo.push_back(undo);
        while self.undo.len() > self.keep {
            self.undo.pop_front();
        }
        changed
    }

    /// Forgets the write log: what was written so far is the state before the first kept block.
    pub(super) fn seal_base(&mut self) {
        self.log.clear();
        self.undo.clear();
    }

    /// The state `back` blocks ago; 0 is the present.
    pub(super) fn view(&self, back: usize) -> Option<View<'_>> {
        (back <= self.undo.len()).then_some(View { state: self, back })
    }

    /// The present state.
    pub(super) fn present(&self) -> View<'_> {
        View {
            state: self,
            back: 0,
        }
    }
}

/// The state after one block.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    state: &'a State,
    back: usize,
}

impl<'a> View<'a> {
    fn undos(&self) -> impl DoubleEndedIterator<Item = &'a Diff> + use<'a> {
        let first = self.state.undo.len() - self.back;
        self.state.undo.range(first..)
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&'a [u8]> {
        // The oldest later block that wrote the key knows what it was before.
        for undo in self.undos() {
            if let Some(old) = undo.get(key) {
                return old.as_deref();
            }
        }
        self.state.get(key)
    }

    /// Keys with `prefix` behind `after`, ascending, at most `limit`.
    pub(super) fn keys(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Vec<Cow<'a, [u8]>> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.to_vec()),
            _ => Bound::Included(prefix.to_vec()),
        };
        let range = (start, Bound::Unbounded);
        let inside = |key: &&'a Vec<u8>| key.starts_with(prefix);
        if self.back == 0 {
            let live = self.state.live.range(range).map(|(k, _)| k);
            return live
                .take_while(inside)
                .take(limit)
                .map(|k| Cow::Borrowed(k.as_slice()))
                .collect();
        }
        let live = self.state.live.range(range.clone()).map(|(k, _)| k);
        let mut all: BTreeSet<&'a [u8]> = live.take_while(inside).map(Vec::as_slice).collect();
        for undo in self.undos() {
            let older = undo.range(range.clone()).map(|(k, _)| k);
            all.extend(older.take_while(inside).map(Vec::as_slice));
        }
        all.into_iter()
            .filter(|key| self.get(key).is_some())
            .take(limit)
            .map(Cow::Borrowed)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(state: &mut State, key: &str, value: Option<&str>) {
        state.put(key.into(), value.map(Into::into));
    }

    #[test]
    fn older_states_are_read_and_the_oldest_are_dropped() {
        let mut state = State::new(2);
        put(&mut state, "a", Some("0"));
        state.seal_base();
        for value in ["1", "2", "3"] {
            put(&mut state, "a", Some(value));
            put(&mut state, value, Some("new"));
            state.commit();
        }
        let at = |back: usize| state.view(back).unwrap();
        assert_eq!(at(0).get(b"a"), Some(&b"3"[..]));
        assert_eq!(at(2).get(b"a"), Some(&b"1"[..]));
        assert_eq!(at(2).keys(b"", None, 9), [&b"1"[..], b"a"]);
        assert_eq!(at(0).keys(b"", Some(b"2"), 1), [&b"3"[..]]);
        assert!(state.view(3).is_none());
    }

    #[test]
    fn rollback_takes_back_the_writes_of_one_extrinsic() {
        let mut state = State::new(2);
        put(&mut state, "a", Some("kept"));
        let mark = state.mark();
        put(&mut state, "a", Some("lost"));
        put(&mut state, "b", Some("lost"));
        put(&mut state, "a", None);
        state.rollback(mark);
        assert_eq!(state.get(b"a"), Some(&b"kept"[..]));
        assert_eq!(state.get(b"b"), None);
    }

    proptest! {
        /// Every kept block reads as a full copy of the state would.
        #[test]
        fn views_equal_full_copies(
            blocks in prop::collection::vec(
                prop::collection::vec((0u8..6, prop::option::of(0u8..4)), 0..8), 1..8)
        ) {
            let mut state = State::new(100);
            state.seal_base();
            let mut model = BTreeMap::new();
            let mut copies = vec![model.clone()];
            for block in blocks {
                for (key, value) in block {
                    let value = value.map(|v| vec![v]);
                    state.put(vec![key], value.clone());
                    match value {
                        Some(value) => model.insert(vec![key], value),
                        None => model.remove(&vec![key]),
                    };
                }
                state.commit();
                copies.push(model.clone());
            }
            for (back, copy) in copies.iter().rev().enumerate() {
                let view = state.view(back).unwrap();
                let keys: Vec<_> = copy.keys().cloned().collect();
                prop_assert_eq!(view.keys(b"", None, 99), keys);
                for key in 0u8..6 {
                    prop_assert_eq!(view.get(&[key]), copy.get(&vec![key]).map(Vec::as_slice));
                }
            }
        }
    }
}

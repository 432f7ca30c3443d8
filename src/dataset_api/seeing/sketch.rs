//! Top talkers in bounded memory: the space-saving sketch.
//!
//! Source: Metwally, Agrawal, El Abbadi, "Efficient computation of frequent and top-k elements in
//! data streams", ICDT 2005. With k counters, every key that made more than 1/k of all requests is
//! in it, and no count is too low or too high by more than the smallest counter.

use std::collections::HashMap;

/// One counted key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Talker<K> {
    /// Who.
    pub key: K,
    /// How often, at most.
    pub count: u64,
    /// By how much the count may be too high.
    pub error: u64,
}

/// The sketch.
#[derive(Debug)]
pub struct Sketch<K> {
    counters: Vec<Talker<K>>,
    places: HashMap<K, usize>,
    most: usize,
}

impl<K: Copy + Eq + std::hash::Hash> Sketch<K> {
    /// A sketch of `most` counters (at least 1).
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            counters: Vec::new(),
            places: HashMap::new(),
            most: most.max(1),
        }
    }

    /// Counts one request of `key`.
    pub fn count(&mut self, key: K) {
        if let Some(place) = self.places.get(&key) {
            self.counters[*place].count += 1;
            return;
        }
        if self.counters.len() < self.most {
            self.places.insert(key, self.counters.len());
            self.counters.push(Talker {
                key,
                count: 1,
                error: 0,
            });
            return;
        }
        let smallest = self
            .counters
            .iter()
            .enumerate()
            .min_by_key(|(_, t)| t.count);
        let Some(place) = smallest.map(|(place, _)| place) else {
            return;
        };
        let talker = &mut self.counters[place];
        self.places.remove(&talker.key);
        self.places.insert(key, place);
        *talker = Talker {
            key,
            count: talker.count + 1,
            error: talker.count,
        };
    }

    /// The `n` that asked most, most first.
    #[must_use]
    pub fn top(&self, n: usize) -> Vec<Talker<K>> {
        let mut all = self.counters.clone();
        all.sort_by_key(|talker| std::cmp::Reverse(talker.count));
        all.truncate(n);
        all
    }

    /// Halves every count, so that the list tells of lately.
    pub fn fade(&mut self) {
        for talker in &mut self.counters {
            talker.count /= 2;
            talker.error /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loud_are_found_among_many_quiet_ones() {
        let mut sketch = Sketch::new(16);
        for n in 0u32..10_000 {
            sketch.count(1_000_000 + n);
            if n % 4 == 0 {
                sketch.count(7);
            }
            if n % 5 == 0 {
                sketch.count(8);
            }
        }
        let top = sketch.top(2);
        assert_eq!((top[0].key, top[1].key), (7, 8));
        assert!(
            top[0].count - top[0].error <= 2_500 && top[0].count >= 2_500,
            "{top:?}"
        );
        sketch.fade();
        assert!(sketch.top(1)[0].count <= top[0].count / 2 + 1);
    }
}

//! A bounded cache of values by hash.

use std::collections::HashMap;
use std::mem::take;
use std::sync::Arc;

use parking_lot::Mutex;

/// The key of an entry: a hash that a client cannot choose, so that the shards are filled evenly.
pub type Hash = [u8; 32];

/// A cache of two generations. When the current generation is full, it becomes the previous one,
/// and the entries of the old previous generation are dropped. An entry that is found in the
/// previous generation moves to the current one.
pub struct Cache<V> {
    shards: [Mutex<Generations<V>>; SHARDS],
    /// The maximum number of entries in one generation of one shard.
    generation: usize,
}

struct Generations<V> {
    current: HashMap<Hash, Arc<V>>,
    previous: HashMap<Hash, Arc<V>>,
}

impl<V> Cache<V> {
    /// Creates a cache of at most `capacity` entries. An entry is kept at least until half as many
    /// other entries were added or found.
    pub fn new(capacity: usize) -> Self {
        let empty = || Generations { current: HashMap::new(), previous: HashMap::new() };
        let shards = std::array::from_fn(|_| Mutex::new(empty()));
        Self { shards, generation: capacity / SHARDS / 2 }
    }

    /// Returns the value of `hash`.
    pub fn get(&self, hash: &Hash) -> Option<Arc<V>> {
        let mut shard = self.shard(hash).lock();
        if let Some(found) = shard.current.get(hash) {
            return Some(Arc::clone(found));
        }
        let found = shard.previous.remove(hash)?;
        shard.insert(*hash, Arc::clone(&found), self.generation);
        Some(found)
    }

    /// Adds an entry.
    pub fn insert(&self, hash: Hash, value: Arc<V>) {
        self.shard(&hash).lock().insert(hash, value, self.generation);
    }

    /// Removes each entry for whose value `is_kept` returns `false`.
    pub fn retain(&self, is_kept: impl Fn(&V) -> bool) {
        for shard in &self.shards {
            let Generations { current, previous } = &mut *shard.lock();
            current.retain(|_, value| is_kept(value));
            previous.retain(|_, value| is_kept(value));
        }
    }

    fn shard(&self, hash: &Hash) -> &Mutex<Generations<V>> {
        &self.shards[usize::from(hash[0]) % SHARDS]
    }
}

impl<V> Generations<V> {
    fn insert(&mut self, hash: Hash, value: Arc<V>, generation: usize) {
        if self.current.len() >= generation {
            self.previous = take(&mut self.current);
        }
        self.current.insert(hash, value);
    }
}

/// The number of shards. Each shard has its own lock, so that event loops rarely wait for each
/// other.
const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: usize = 3200;

    fn hash(number: usize) -> Hash {
        let mut hash = Hash::default();
        hash[..8].copy_from_slice(&number.to_le_bytes());
        hash
    }

    fn len(cache: &Cache<usize>) -> usize {
        let entries = |shard: &Mutex<Generations<usize>>| {
            let Generations { current, previous } = &*shard.lock();
            current.len() + previous.len()
        };
        cache.shards.iter().map(entries).sum()
    }

    #[test]
    fn a_used_entry_stays_and_an_unused_one_is_dropped() {
        let cache = Cache::new(CAPACITY);
        for number in 0..4 * CAPACITY {
            cache.insert(hash(number), Arc::new(number));
            assert_eq!(cache.get(&hash(0)).as_deref(), Some(&0));
            assert!(len(&cache) <= CAPACITY);
        }
        assert_eq!(cache.get(&hash(1)), None);
        let newest = 4 * CAPACITY - CAPACITY / 2 + SHARDS..4 * CAPACITY;
        assert!(newest.into_iter().all(|number| cache.get(&hash(number)).is_some()));
    }

    #[test]
    fn entries_are_removed_from_both_generations() {
        let cache = Cache::new(CAPACITY);
        (0..CAPACITY).for_each(|number| cache.insert(hash(number), Arc::new(number)));
        assert_eq!(len(&cache), CAPACITY);
        cache.retain(|number| number % 3 == 0);
        assert_eq!(len(&cache), CAPACITY.div_ceil(3));
        assert_eq!((cache.get(&hash(3)).is_some(), cache.get(&hash(4)).is_some()), (true, false));
    }
}

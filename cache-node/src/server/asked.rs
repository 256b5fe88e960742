//! Blocks that clients asked for a few bytes of, and that are not here.

use std::collections::HashMap;

use millpond_proto::BlockId;
use parking_lot::Mutex;

/// Counts how often each block was asked for in vain.
///
/// It forgets: of many blocks asked for once each, as by reads all over a large file, only the
/// latest are known.
#[derive(Debug, Default)]
pub struct Asked {
    generations: Mutex<Generations>,
}

/// Two tables, the older of which is dropped when the newer is full.
#[derive(Debug, Default)]
struct Generations {
    newer: HashMap<BlockId, u8>,
    older: HashMap<BlockId, u8>,
}

/// Blocks in each table.
const KNOWN: usize = 16 << 10;

/// This many requests for a few bytes of a block show that others will follow.
const ENOUGH: u8 = 3;

impl Asked {
    /// Takes note of one more request for `block`. Whether it is the last that is in vain:
    /// the count begins anew then.
    pub(crate) fn is_enough(&self, block: BlockId) -> bool {
        let mut tables = self.generations.lock();
        let before = tables
            .newer
            .remove(&block)
            .or_else(|| tables.older.remove(&block));
        let count = before.unwrap_or_default() + 1;
        if count >= ENOUGH {
            return true;
        }
        if tables.newer.len() >= KNOWN {
            tables.older = std::mem::take(&mut tables.newer);
        }
        tables.newer.insert(block, count);
        false
    }
}

#[cfg(test)]
mod tests {
    use millpond_proto::FileId;

    use super::*;

    #[test]
    fn the_third_request_is_enough_and_the_table_is_bounded() {
        let asked = Asked::default();
        let block = |n| BlockId::new(FileId([1; 16]), n);
        assert!(!asked.is_enough(block(0)));
        assert!(!asked.is_enough(block(0)));
        assert!(asked.is_enough(block(0)));
        assert!(!asked.is_enough(block(0)), "anew");
        for n in 1..100_000 {
            assert!(!asked.is_enough(block(n)));
        }
        let tables = asked.generations.lock();
        assert!(tables.newer.len() <= KNOWN && tables.older.len() <= KNOWN);
    }
}

//! Which byte of a draft is where. Pure.

use std::ops::Range;

use rangemap::RangeSet;

/// Where the bytes of a file that is being written are.
///
/// Invariants:
/// - `base <= size`: what shows through of the version below ends with the file.
/// - `dirty` lies within `staged`, and both within `0..size`.
/// - `given_up` has nothing of `staged`, and bytes are given up only where `base` is 0.
/// - A byte that is neither staged nor given up is the base's if it lies below `base`, else zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Content {
    size: u64,
    base: u64,
    staged: RangeSet<u64>,
    staged_len: u64,
    dirty: RangeSet<u64>,
    /// Only in an upload that is not completed.
    given_up: RangeSet<u64>,
    changed: bool,
}

/// A stretch of a file, and where its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) range: Range<u64>,
    pub(super) from: Where,
}

/// Where bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    /// In the staging file, at the same offset.
    Staged,
    /// In the version below.
    Base,
    /// Nowhere: they are zero.
    Zeros,
    /// In the store, where they cannot be read yet.
    GivenUp,
}

impl Content {
    /// An unchanged file of `size` bytes.
    pub(super) fn of_base(size: u64) -> Self {
        Self {
            size,
            base: size,
            ..Self::default()
        }
    }

    /// A file that no store has yet, empty.
    pub(super) fn new_file() -> Self {
        Self {
            changed: true,
            ..Self::default()
        }
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// How far the version below shows through, where nothing is staged.
    pub(super) const fn base(&self) -> u64 {
        self.base
    }

    /// Whether the file is not the version below.
    pub(super) const fn is_changed(&self) -> bool {
        self.changed
    }

    /// Whether any byte would be read from the version below.
    pub(super) fn needs_base(&self) -> bool {
        self.base > 0 && self.staged.gaps(&(0..self.base)).next().is_some()
    }

    /// Notes that `range` is staged now, and what it is.
    pub(super) fn write(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.size = self.size.max(range.end);
        self.stage(range.clone());
        self.dirty.insert(range);
        self.changed = true;
    }

    /// Notes that `range`, as the version below has it, is staged now.
    pub(super) fn copied_up(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.stage(range);
        }
    }

    /// Notes that `range`, as far as it lies in the file, is zeros, and that the staging file
    /// has zeros there.
    pub(super) fn punch(&mut self, range: Range<u64>) {
        let range = range.start..range.end.min(self.size);
        if range.is_empty() {
            return;
        }
        self.unstage(range.clone());
        // Elsewhere what is not staged is zero anyway.
        let over_base = range.start..range.end.min(self.base);
        if !over_base.is_empty() {
            self.stage(over_base.clone());
            self.dirty.insert(over_base);
        }
        self.changed = true;
    }

    /// Forgets what is staged and not needed: the version below has it too.
    pub(super) fn drop_clean(&mut self) {
        if !self.changed {
            self.unstage(0..self.size);
        }
    }

    /// How far the file is written without a gap from its beginning.
    pub(super) fn prefix(&self) -> u64 {
        let mut at = 0;
        while let Some(more) = self.staged.get(&at).or_else(|| self.given_up.get(&at)) {
            at = more.end;
        }
        at
    }

    /// Whether all of `range` is staged.
    pub(super) fn is_staged(&self, range: &Range<u64>) -> bool {
        self.staged.gaps(range).next().is_none()
    }

    /// Whether the version below has all of `range` as it is.
    pub(super) fn is_clean(&self, range: &Range<u64>) -> bool {
        range.end <= self.base && self.dirty.overlapping(range).next().is_none()
    }

    /// Forgets that `range`, which was sent, is staged.
    pub(super) fn give_up(&mut self, range: Range<u64>) {
        self.unstage(range.clone());
        self.given_up.insert(range);
    }

    /// Whether any of `range` was given up.
    pub(super) fn is_given_up(&self, range: &Range<u64>) -> bool {
        !range.is_empty() && self.given_up.overlapping(range).next().is_some()
    }

    /// Whether anything was given up.
    pub(super) fn has_given_up(&self) -> bool {
        !self.given_up.is_empty()
    }

    /// Forgets that some bytes are staged which the version below has as well; which they are.
    pub(super) fn drop_some_clean(&mut self) -> Option<Range<u64>> {
        let below = 0..self.base;
        let staged = self.staged.overlapping(&below);
        let within = staged.map(|staged| staged.start..staged.end.min(self.base));
        let clean = within
            .flat_map(|staged| self.dirty.gaps(&staged).collect::<Vec<_>>())
            .next()?;
        self.unstage(clean.clone());
        Some(clean)
    }

    /// Bytes that are staged.
    pub(super) const fn staged_len(&self) -> u64 {
        self.staged_len
    }

    /// Bytes that are staged once `range` is.
    pub(super) fn staged_len_with(&self, range: &Range<u64>) -> u64 {
        let gaps = self.staged.gaps(range);
        self.staged_len + gaps.map(|gap| gap.end - gap.start).sum::<u64>()
    }

    fn stage(&mut self, range: Range<u64>) {
        self.staged_len = self.staged_len_with(&range);
        self.staged.insert(range);
    }

    fn unstage(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let overlap =
            |staged: &Range<u64>| staged.end.min(range.end) - staged.start.max(range.start);
        let covered: u64 = self.staged.overlapping(&range).map(overlap).sum();
        self.staged_len -= covered;
        self.staged.remove(range.clone());
        self.dirty.remove(range);
    }

    /// Cuts the file, or makes it longer with zeros.
    pub(super) fn truncate(&mut self, size: u64) {
        if size == self.size {
            return;
        }
        if size < self.size {
            self.unstage(size..self.size);
            self.given_up.remove(size..self.size);
            self.base = self.base.min(size);
        }
        self.size = size;
        self.changed = true;
    }

    /// Notes that what is below is now this very content.
    pub(super) fn committed(&mut self) {
        self.base = self.size;
        self.dirty = RangeSet::new();
        self.given_up = RangeSet::new();
        self.changed = false;
    }

    /// The parts of `range`, cut at the end of the file, in order and without a gap.
    pub(super) fn plan(&self, range: Range<u64>) -> Vec<Stretch> {
        let end = range.end.min(self.size);
        let mut at = range.start;
        let mut plan = Vec::new();
        if at >= end {
            return plan;
        }
        for staged in self.staged.overlapping(&(at..end)) {
            self.unstaged(at..staged.start.min(end), &mut plan);
            let range = staged.start.max(at)..staged.end.min(end);
            at = range.end;
            plan.push(Stretch {
                range,
                from: Where::Staged,
            });
        }
        self.unstaged(at..end, &mut plan);
        plan
    }

    fn unstaged(&self, range: Range<u64>, plan: &mut Vec<Stretch>) {
        if self.given_up.is_empty() || range.is_empty() {
            return self.below(range, plan);
        }
        let mut at = range.start;
        for given_up in self.given_up.overlapping(&range) {
            let given_up = given_up.start.max(at)..given_up.end.min(range.end);
            self.below(at..given_up.start, plan);
            at = given_up.end;
            plan.push(Stretch {
                range: given_up,
                from: Where::GivenUp,
            });
        }
        self.below(at..range.end, plan);
    }

    fn below(&self, range: Range<u64>, plan: &mut Vec<Stretch>) {
        let middle = self.base.clamp(range.start, range.end.max(range.start));
        for (range, from) in [
            (range.start..middle, Where::Base),
            (middle..range.end, Where::Zeros),
        ] {
            if !range.is_empty() {
                plan.push(Stretch { range, from });
            }
        }
    }

    /// The first byte at or after `offset` that may be other than zero, if there is one.
    pub(super) fn data_at_or_after(&self, offset: u64) -> Option<u64> {
        let plan = self.plan(offset..self.size);
        let data = plan.iter().find(|stretch| stretch.from != Where::Zeros);
        data.map(|stretch| stretch.range.start)
    }

    /// The first byte at or after `offset` that is known to be zero; the end of the file
    /// counts as one.
    pub(super) fn hole_at_or_after(&self, offset: u64) -> u64 {
        let plan = self.plan(offset..self.size);
        let hole = plan.iter().find(|stretch| stretch.from == Where::Zeros);
        hole.map_or_else(|| self.size.max(offset), |stretch| stretch.range.start)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_given_up_is_told_apart() {
        let mut content = Content::new_file();
        content.write(0..100);
        content.give_up(10..30);
        assert_eq!((content.prefix(), content.staged_len()), (100, 80));
        let plan = content.plan(0..200);
        let from: Vec<_> = plan.into_iter().map(|s| (s.range, s.from)).collect();
        assert_eq!(
            from,
            [
                (0..10, Where::Staged),
                (10..30, Where::GivenUp),
                (30..100, Where::Staged)
            ]
        );
        assert!(content.is_given_up(&(29..31)) && !content.is_given_up(&(30..31)));
        content.committed();
        assert!(!content.has_given_up());
        assert_eq!(content.plan(10..30)[0].from, Where::Base);
        content.write(90..110);
        assert_eq!(content.drop_some_clean(), Some(0..10));
        assert_eq!(content.drop_some_clean(), Some(30..90));
        assert_eq!(content.drop_some_clean(), None);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write(Range<u64>, u8),
        Truncate(u64),
        Punch(Range<u64>),
        CopyUp,
        Commit,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0..60_u64, 0..30_u64, 1..=255_u8)
                .prop_map(|(at, len, byte)| Step::Write(at..at + len, byte)),
            3 => (0..80_u64).prop_map(Step::Truncate),
            2 => (0..70_u64, 0..30_u64).prop_map(|(at, len)| Step::Punch(at..at + len)),
            1 => Just(Step::CopyUp),
            1 => Just(Step::Commit),
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        /// Every byte is where the plan says, whatever was done before.
        #[test]
        fn a_plan_finds_every_byte(base in 0..64_u64, steps in steps(), range in (0..90_u64, 0..90_u64)) {
            let mut below: Vec<u8> = (0..base).map(|i| i as u8 | 1).collect();
            let mut model = below.clone();
            let mut staging = [0xee_u8; 200];
            let mut content = Content::of_base(base);
            for step in steps {
                match step {
                    Step::Write(range, byte) => {
                        let (from, to) = (range.start as usize, range.end as usize);
                        if from < to {
                            model.resize(model.len().max(to), 0);
                            model[from..to].fill(byte);
                            staging[from..to].fill(byte);
                        }
                        content.write(range);
                    }
                    Step::Truncate(size) => {
                        model.resize(size as usize, 0);
                        content.truncate(size);
                    }
                    Step::Punch(range) => {
                        let end = (range.end as usize).min(model.len());
                        model[(range.start as usize).min(end)..end].fill(0);
                        staging[range.start as usize..range.end as usize].fill(0);
                        content.punch(range);
                    }
                    Step::CopyUp => {
                        for stretch in content.plan(0..content.base()) {
                            let (from, to) = (stretch.range.start as usize, stretch.range.end as usize);
                            if stretch.from == Where::Base {
                                staging[from..to].copy_from_slice(&below[from..to]);
                                content.copied_up(stretch.range);
                            }
                        }
                        prop_assert!(!content.needs_base());
                    }
                    Step::Commit => {
                        below = model.clone();
                        content.committed();
                        prop_assert!(!content.is_changed());
                    }
                }
                prop_assert_eq!(content.size(), model.len() as u64);
                let staged: u64 = content.staged.iter().map(|r| r.end - r.start).sum();
                prop_assert_eq!(content.staged_len(), staged);
                prop_assert!(content.dirty.iter().all(|r| content.staged.gaps(r).next().is_none()));
                prop_assert!(content.base <= content.size);
            }
            prop_assert!(content.is_changed() || model == below);
            let range = range.0..range.0 + range.1;
            let mut read = Vec::new();
            for stretch in content.plan(range.clone()) {
                prop_assert_eq!(stretch.range.start, range.start + read.len() as u64);
                let (from, to) = (stretch.range.start as usize, stretch.range.end as usize);
                match stretch.from {
                    Where::Staged => read.extend_from_slice(&staging[from..to]),
                    Where::Base => read.extend_from_slice(&below[from..to]),
                    Where::Zeros => read.resize(read.len() + to - from, 0),
                    Where::GivenUp => prop_assert!(false, "nothing was given up"),
                }
            }
            let end = (range.end as usize).min(model.len());
            let start = (range.start as usize).min(end);
            prop_assert_eq!(&read, &model[start..end]);
        }
    }
}

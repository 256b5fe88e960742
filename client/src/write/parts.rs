//! How a file is cut into the parts of an upload. Pure.

use std::ops::Range;

use millpond_ufs::PartRules;

/// The length of the first parts.
pub(super) const FIRST: u64 = 8 << 20;

/// How often the length doubles until the last part that a store allows: with the rules of S3,
/// the 10,000 parts come to 8 TiB.
const DOUBLINGS: u32 = 10;

/// The longest part that is copied within the store.
const LONGEST_COPY: u64 = 1 << 30;

/// Where the parts of an upload begin and end while nobody knows how long the file will be: the
/// first ones are short, so that they are sent early, later ones are longer, so that they are
/// not too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    first: u64,
    longest: u64,
    /// Parts of one length.
    run: u64,
}

impl Cut {
    pub(super) fn of(rules: &PartRules) -> Self {
        Self {
            first: FIRST.max(rules.min).min(rules.max),
            longest: rules.max,
            run: u64::from(rules.count / DOUBLINGS).max(1),
        }
    }

    /// Where the part `number` is, in a file that reaches beyond it.
    pub(super) fn part(&self, number: u32) -> Range<u64> {
        let number = u64::from(number);
        let mut start = 0_u64;
        for step in 0..number / self.run {
            start = start.saturating_add(self.run.saturating_mul(self.len(step)));
        }
        let len = self.len(number / self.run);
        start = start.saturating_add((number % self.run).saturating_mul(len));
        start..start.saturating_add(len)
    }

    fn len(&self, step: u64) -> u64 {
        let factor = 1_u64.checked_shl(step.min(63) as u32).unwrap_or(u64::MAX);
        self.first.saturating_mul(factor).min(self.longest)
    }

    /// The parts of a file of `size` bytes, in order and without a gap.
    pub(super) fn parts(self, size: u64) -> impl Iterator<Item = Range<u64>> {
        let parts = (0..).map(move |number| self.part(number));
        parts
            .take_while(move |part| part.start < size)
            .map(move |part| part.start..part.end.min(size))
    }
}

/// A part of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) range: Range<u64>,
    /// Whether the store has it in the version below.
    pub(super) copied: bool,
}

/// The parts of a file of `size` bytes of which the store has those ranges that are `clean`.
pub(super) fn plan(
    cut: Cut,
    rules: &PartRules,
    size: u64,
    clean: impl Fn(&Range<u64>) -> bool,
) -> Vec<Part> {
    let longest = LONGEST_COPY.min(rules.max);
    let mut plan: Vec<Part> = Vec::new();
    for range in cut.parts(size) {
        let copied = clean(&range);
        match plan.last_mut() {
            Some(last) if copied && last.copied && range.end - last.range.start <= longest => {
                last.range.end = range.end;
            }
            _ => plan.push(Part { range, copied }),
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_largest_object_fits_into_the_parts_that_there_may_be() {
        let rules = PartRules::default();
        let cut = Cut::of(&rules);
        let last = cut.part(rules.count - 1);
        assert!(last.end >= rules.object, "{last:?}");
        assert!(last.end - last.start <= rules.max);
        assert_eq!(cut.part(0), 0..FIRST);
    }

    proptest! {
        #[test]
        fn parts_follow_each_other_and_keep_the_rules(
            size in 1..(3_u64 << 40),
            min in 1..(64_u64 << 20),
            dirty in prop::collection::vec((0..(3_u64 << 40), 1..(1_u64 << 30)), 0..5),
        ) {
            let rules = PartRules { min, ..PartRules::default() };
            let clean = |range: &Range<u64>| {
                dirty.iter().all(|(at, len)| range.end <= *at || at + len <= range.start)
            };
            let plan = plan(Cut::of(&rules), &rules, size, clean);
            prop_assert!(plan.len() <= rules.count as usize);
            let mut at = 0;
            for (number, part) in plan.iter().enumerate() {
                prop_assert_eq!(part.range.start, at);
                let len = part.range.end - part.range.start;
                prop_assert!(len <= rules.max && len > 0);
                prop_assert!(len >= min || number + 1 == plan.len());
                prop_assert!(!part.copied || clean(&part.range));
                at = part.range.end;
            }
            prop_assert_eq!(at, size);
        }
    }
}

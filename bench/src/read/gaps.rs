//! Rows of cases that could not be measured.

use crate::record::{Row, Status};
use crate::scenario::Context;

/// A case and its figure.
pub(crate) type Case = (&'static str, &'static str);

/// A row with `why` for each of the cases that is wanted and has none.
pub(crate) fn fill(
    context: &Context,
    scenario: &str,
    cases: &[Case],
    rows: &mut Vec<Row>,
    status: Status,
    why: &str,
) {
    for (case, figure) in cases {
        if context.wanted.wants(case) && !rows.iter().any(|row| row.case == *case) {
            rows.push(Row::without(scenario, *case, figure, status, why));
        }
    }
}

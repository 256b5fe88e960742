//! Decorators: each wraps any [`Ufs`](crate::Ufs) and adds one thing.

mod deadline;
mod limited;
mod metered;
mod shape;

pub(crate) use deadline::Deadline;
pub(crate) use limited::{Gate, Limited, Rates, Valve};
pub(crate) use metered::Metered;
pub(crate) use shape::{Shape, Shaped};

//! A disk that does what a test wants.

use std::io;
use std::path::Path;
use std::sync::Arc;

use millpond_store::disk::{Faults, FileOp};
use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

/// Which operations: by kind alone.
pub(crate) type Which = fn(FileOp) -> bool;

/// The faults of one disk; none at first. When the test is over, whatever way, nothing hangs
/// any more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sick {
    disk: Arc<Disk>,
}

#[derive(Debug, Default)]
struct Disk {
    plan: Mutex<Plan>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Plan {
    fails: Option<(Which, Errno)>,
    /// Numbers of operations that fail, counted from 0.
    fail_numbers: Vec<u64>,
    hangs: Option<Which>,
    operations: u64,
    hanging: usize,
    most_hanging: usize,
}

/// Heals the disk when it goes: threads that hang would keep the runtime from ending.
#[derive(Debug)]
pub(crate) struct Healed(Sick);

impl Sick {
    pub(crate) fn new() -> (Self, Healed) {
        let sick = Self::default();
        (sick.clone(), Healed(sick))
    }

    pub(crate) fn faults(&self) -> Option<Arc<dyn Faults>> {
        Some(Arc::clone(&self.disk) as Arc<dyn Faults>)
    }

    /// These operations fail from now on.
    pub(crate) fn fail(&self, which: Which, errno: Errno) {
        self.disk.plan.lock().fails = Some((which, errno));
    }

    /// The operations with these numbers fail, of all from now on.
    pub(crate) fn fail_numbers(&self, numbers: Vec<u64>) {
        let mut plan = self.disk.plan.lock();
        plan.fail_numbers = numbers;
        plan.operations = 0;
    }

    /// These operations wait from now on.
    pub(crate) fn hang(&self, which: Which) {
        self.disk.plan.lock().hangs = Some(which);
    }

    pub(crate) fn heal(&self) {
        let mut plan = self.disk.plan.lock();
        (plan.fails, plan.hangs) = (None, None);
        plan.fail_numbers.clear();
        self.disk.changed.notify_all();
    }

    /// Operations that hang.
    pub(crate) fn hanging(&self) -> usize {
        self.disk.plan.lock().hanging
    }

    /// The most that ever hung at one time.
    pub(crate) fn most_hanging(&self) -> usize {
        self.disk.plan.lock().most_hanging
    }

    /// Operations so far.
    pub(crate) fn operations(&self) -> u64 {
        self.disk.plan.lock().operations
    }
}

impl Drop for Healed {
    fn drop(&mut self) {
        self.0.heal();
    }
}

impl Faults for Disk {
    fn before(&self, op: FileOp, _: &Path) -> io::Result<()> {
        let mut plan = self.plan.lock();
        let number = plan.operations;
        plan.operations += 1;
        while plan.hangs.is_some_and(|hangs| hangs(op)) {
            plan.hanging += 1;
            plan.most_hanging = plan.most_hanging.max(plan.hanging);
            self.changed.wait(&mut plan);
            plan.hanging -= 1;
        }
        match plan.fails {
            Some((fails, errno)) if fails(op) => Err(errno.into()),
            _ if plan.fail_numbers.contains(&number) => Err(Errno::IO.into()),
            _ => Ok(()),
        }
    }
}

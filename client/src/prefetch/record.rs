//! Which files were opened, in order: recorded to be fetched ahead the next time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::error::ClientError;

/// Traces that are kept; the oldest goes when another begins.
const MAX_TRACES: usize = 4;

/// The most bytes of one trace.
const MAX_TRACE: usize = 4 << 20;

/// What was recorded under a name.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The name that was given at its start.
    pub name: Arc<str>,
    /// Paths of the files that were opened, each followed by a newline, in order. A file
    /// opened again right away is there once.
    pub list: Arc<str>,
    /// Whether more files were opened than the trace has room for.
    pub is_cut: bool,
}

/// Records opens while it is told to.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    recording: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Current>,
    done: VecDeque<Trace>,
}

#[derive(Debug)]
struct Current {
    name: Arc<str>,
    list: String,
    is_cut: bool,
}

impl Recorder {
    /// Starts a trace. One under way is finished first; an earlier one of the same name goes.
    ///
    /// # Errors
    /// [`ClientError::BadPath`] for a name that is no file name.
    pub(crate) fn start(&self, name: &str) -> Result<(), ClientError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > 100 || name.starts_with('.') || !name.chars().all(plain)
        {
            return Err(ClientError::BadPath {
                path: name.to_owned(),
                why: "a trace is named by letters, digits, . _ and -, at most 100",
            });
        }
        let mut state = self.state.lock();
        state.finish();
        state.done.retain(|trace| *trace.name != *name);
        state.current = Some(Current {
            name: Arc::from(name),
            list: String::new(),
            is_cut: false,
        });
        self.recording.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Ends the trace under way, if there is one.
    pub(crate) fn stop(&self) {
        self.recording.store(false, Ordering::Relaxed);
        self.state.lock().finish();
    }

    /// Takes note of an open.
    pub(crate) fn opened(&self, path: &str) {
        if !self.recording.load(Ordering::Relaxed) || path.contains('\n') {
            return;
        }
        let mut state = self.state.lock();
        let Some(current) = &mut state.current else {
            return;
        };
        let ends_with_it = current
            .list
            .strip_suffix('\n')
            .and_then(|list| list.strip_suffix(path))
            .is_some_and(|before| before.is_empty() || before.ends_with('\n'));
        if ends_with_it {
            return;
        }
        if current.list.len() + path.len() >= MAX_TRACE {
            current.is_cut = true;
            return;
        }
        current.list.push_str(path);
        current.list.push('\n');
    }

    /// The traces that were ended, the oldest first.
    pub(crate) fn traces(&self) -> Vec<Trace> {
        self.state.lock().done.iter().cloned().collect()
    }

    /// The name of the trace under way.
    pub(crate) fn current(&self) -> Option<Arc<str>> {
        let state = self.state.lock();
        state.current.as_ref().map(|c| Arc::clone(&c.name))
    }
}

impl State {
    fn finish(&mut self) {
        if let Some(Current { name, list, is_cut }) = self.current.take() {
            let list = Arc::from(list);
            self.done.push_back(Trace { name, list, is_cut });
        }
        while self.done.len() > MAX_TRACES {
            self.done.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_holds_the_opens_between_start_and_stop() {
        let recorder = Recorder::default();
        recorder.opened("/before");
        recorder.start("epoch-1").unwrap();
        for path in ["/a", "/b", "/b", "/x/b", "/a", "/new\nline"] {
            recorder.opened(path);
        }
        assert_eq!(recorder.current().as_deref(), Some("epoch-1"));
        recorder.stop();
        recorder.opened("/after");
        let traces = recorder.traces();
        assert_eq!(&*traces[0].list, "/a\n/b\n/x/b\n/a\n");
        assert!(!traces[0].is_cut);
        assert_eq!(recorder.current(), None);
    }

    #[test]
    fn traces_are_few_short_and_well_named() {
        let recorder = Recorder::default();
        for n in 0..20 {
            recorder.start(&format!("t{n}")).unwrap();
        }
        recorder.stop();
        assert_eq!(recorder.traces().len(), MAX_TRACES);
        recorder.start("long").unwrap();
        for n in 0..100_000 {
            recorder.opened(&format!("/{n:060}"));
        }
        recorder.stop();
        let traces = recorder.traces();
        let long = traces.last().unwrap();
        assert!(long.is_cut && long.list.len() <= MAX_TRACE);
        for bad in ["", "a/b", "..", "a b", &"x".repeat(101)] {
            assert!(recorder.start(bad).is_err(), "{bad:?}");
        }
    }
}

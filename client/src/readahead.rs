//! Which reads of a file follow a pattern, and what to fetch before they ask. Pure.
//!
//! A handle follows several readers at once, because they may share one handle of the kernel,
//! and because the kernel's own read-ahead arrives out of order on several threads. It knows
//!
//! - **forward** streams: each read continues the last one, or soon will;
//! - **strided** ones: the same distance from read to read, in either direction. Reading
//!   backwards is a stride of minus the length of a read;
//! - **lone** reads: all others. Nothing is fetched ahead of them.

mod forward;
mod strided;

use std::ops::Range;

use forward::Forward;
use strided::{Recent, Strided};

/// Streams of each kind that one handle follows.
const STREAMS: usize = 8;

/// Reads are fetched in pages of the kernel, at least.
pub(crate) const PAGE: u64 = 4096;

/// The streams of one handle.
#[derive(Debug)]
pub(crate) struct Streams {
    forward: Vec<Forward>,
    strided: Vec<Strided>,
    recent: Recent,
    clock: u64,
    /// The serial number of the next stream.
    serial: u64,
}

/// The bounds of reading ahead of one stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// What is asked for at a time, in bytes, once the window is wide.
    pub(crate) grain: u64,
    /// The widest window in bytes; less than a page means none.
    pub(crate) window: u64,
}

/// The size of the file, and the bounds of each stream.
struct Limits<F> {
    size: u64,
    bounds: F,
}

/// What a read is, and what to do about it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Noted {
    /// The stream that it belongs to; none for a lone read.
    pub(crate) stream: Option<u64>,
    /// Whether the stream leaves out parts of the file.
    pub(crate) sparse: bool,
    /// What to fetch before it is asked for, in the order of need. Within the file, not empty,
    /// never the same twice unless it was declined.
    pub(crate) ahead: Vec<Range<u64>>,
    /// A stream that came to its end, or had to make room for another.
    pub(crate) ended: Option<u64>,
}

impl Streams {
    /// No streams yet; their serial numbers will be `serial` and those after it.
    pub(crate) const fn new(serial: u64) -> Self {
        Self {
            forward: Vec::new(),
            strided: Vec::new(),
            recent: Recent::new(),
            clock: 0,
            serial,
        }
    }

    /// Takes note of a read of `[offset, offset + len)` of a file of `size` bytes. `bounds` is
    /// asked when there may be something to fetch ahead, for the stream of that serial number.
    pub(crate) fn note(
        &mut self,
        offset: u64,
        len: u64,
        size: u64,
        bounds: impl Fn(u64) -> Bounds,
    ) -> Noted {
        let bounds = &Limits { size, bounds };
        let end = offset.saturating_add(len).min(size);
        if offset >= end {
            return Noted::default();
        }
        self.clock += 1;
        let read = offset..end;
        if let Some(noted) = self.continue_forward(&read, bounds) {
            return noted;
        }
        if let Some(noted) = self.continue_strided(&read, bounds) {
            return noted;
        }
        if let Some(stride) = self.recent.progression(&read) {
            return self.begin_strided(&read, stride, bounds);
        }
        let early = self.forward.iter_mut().position(|s| s.take_early(&read));
        if let Some(index) = early {
            let stream = &mut self.forward[index];
            stream.used = self.clock;
            let stream = stream.believed().then_some(stream.serial);
            if stream.is_none() {
                self.recent.add(&read);
            }
            return Noted {
                stream,
                ..Noted::default()
            };
        }
        self.begin_forward(read, bounds)
    }

    /// Takes back what was not fetched: everything of `stream` from `from` on. It is asked
    /// for again when the reader gets closer.
    pub(crate) fn decline(&mut self, stream: u64, from: u64) {
        if let Some(stream) = self.forward.iter_mut().find(|s| s.serial == stream) {
            stream.decline(from);
        }
        // A strided stream goes on without what was declined.
    }

    /// The serial numbers of all streams that something is fetched for.
    pub(crate) fn serials(&self) -> impl Iterator<Item = u64> {
        let forward = self.forward.iter().filter(|s| s.believed());
        let strided = self.strided.iter().map(|s| s.serial);
        forward.map(|s| s.serial).chain(strided)
    }

    fn continue_forward<F: Fn(u64) -> Bounds>(
        &mut self,
        read: &Range<u64>,
        bounds: &Limits<F>,
    ) -> Option<Noted> {
        let index = self.forward.iter().position(|s| s.is_continued(read))?;
        let stream = &mut self.forward[index];
        stream.used = self.clock;
        let ahead = stream.advance(read, bounds);
        let (believed, serial) = (stream.believed(), stream.serial);
        let ended = stream.is_through(bounds.size);
        if ended {
            self.forward.swap_remove(index);
        }
        if !believed {
            self.recent.add(read);
        }
        Some(Noted {
            stream: believed.then_some(serial),
            sparse: false,
            ahead: ahead.into_iter().collect(),
            ended: (ended && believed).then_some(serial),
        })
    }

    fn continue_strided<F: Fn(u64) -> Bounds>(
        &mut self,
        read: &Range<u64>,
        bounds: &Limits<F>,
    ) -> Option<Noted> {
        let stream = self.strided.iter_mut().find(|s| s.is_continued(read))?;
        stream.used = self.clock;
        Some(Noted {
            stream: Some(stream.serial),
            sparse: true,
            ahead: stream.advance(read, bounds),
            ended: None,
        })
    }

    fn begin_strided<F: Fn(u64) -> Bounds>(
        &mut self,
        read: &Range<u64>,
        stride: i64,
        bounds: &Limits<F>,
    ) -> Noted {
        let serial = self.take_serial();
        let mut stream = Strided::new(serial, read, stride, self.clock);
        let ahead = stream.advance(read, bounds);
        let mut ended = None;
        if self.strided.len() == STREAMS {
            let idle = (0..STREAMS).min_by_key(|&i| self.strided[i].used);
            ended = idle.map(|index| self.strided.swap_remove(index).serial);
        }
        self.strided.push(stream);
        self.recent.clear();
        Noted {
            stream: Some(serial),
            sparse: true,
            ahead,
            ended,
        }
    }

    fn begin_forward<F: Fn(u64) -> Bounds>(
        &mut self,
        read: Range<u64>,
        bounds: &Limits<F>,
    ) -> Noted {
        self.recent.add(&read);
        let mut ended = None;
        if self.forward.len() == STREAMS {
            // Those that nothing is fetched for go first: random reads do not push out a
            // stream beside them.
            let worth = |s: &Forward| (s.believed() && s.used + 64 > self.clock, s.used);
            let idle = (0..STREAMS).min_by_key(|&i| worth(&self.forward[i]));
            if let Some(index) = idle {
                let gone = self.forward.swap_remove(index);
                ended = gone.believed().then_some(gone.serial);
            }
        }
        let serial = self.take_serial();
        let mut stream = Forward::new(serial, read.clone(), self.clock);
        let ahead = stream.advance(&read, bounds);
        let noted = Noted {
            stream: stream.believed().then_some(serial),
            sparse: false,
            ahead: ahead.into_iter().collect(),
            ended,
        };
        if !stream.is_through(bounds.size) {
            self.forward.push(stream);
        }
        noted
    }

    const fn take_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial - 1
    }
}

#[cfg(test)]
mod tests;

//! Many at once for a while: threads that block, and tasks that wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::measure::{CpuMeter, Sample};

/// One operation of a worker: the bytes that it moved; none when nothing is left to do.
pub type Step<'a> = Box<dyn FnMut() -> Result<Option<u64>> + Send + 'a>;

/// What one worker did, by its own clock.
struct Worked {
    sample: Sample,
    begun: Instant,
    ended: Instant,
}

/// Runs each step over and over on a thread of its own, until `duration` has passed or it has
/// nothing left to do. The CPU time of the processes `others` counts too.
///
/// # Errors
/// The first error of a step, after all have ended.
pub fn threads(steps: Vec<Step<'_>>, duration: Option<Duration>, others: &[u32]) -> Result<Sample> {
    let start_line = Barrier::new(steps.len());
    let cpu = CpuMeter::start(others);
    let worked = std::thread::scope(|scope| {
        let start_line = &start_line;
        let running: Vec<_> = steps
            .into_iter()
            .map(|step| {
                scope.spawn(move || {
                    start_line.wait();
                    work(step, duration)
                })
            })
            .collect();
        running
            .into_iter()
            .map(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
            .collect::<Vec<Result<Worked>>>()
    });
    total(worked, cpu.seconds())
}

fn work(mut step: Step<'_>, duration: Option<Duration>) -> Result<Worked> {
    let mut sample = Sample::default();
    let begun = Instant::now();
    let deadline = duration.map(|duration| begun + duration);
    let mut now = begun;
    while deadline.is_none_or(|deadline| now < deadline) {
        let Some(bytes) = step()? else { break };
        let ended = Instant::now();
        sample.latency.record(ended - now);
        sample.ops += 1;
        sample.bytes += bytes;
        now = ended;
    }
    Ok(Worked {
        sample,
        begun,
        ended: now,
    })
}

/// Keeps `in_flight` requests under way for `duration`, as tasks of `runtime`. `request` is
/// given their numbers, from 0 on, and answers with the bytes that came. The CPU time of the
/// processes `others` counts too. Blocks: not for a thread of the runtime.
///
/// # Errors
/// The first error of a request, after all have ended.
pub fn requests<F, A>(
    runtime: &Handle,
    in_flight: usize,
    duration: Duration,
    others: &[u32],
    request: F,
) -> Result<Sample>
where
    F: Fn(u64) -> A + Send + Sync + 'static,
    A: Future<Output = Result<u64>> + Send + 'static,
{
    let request = Arc::new(request);
    let next = Arc::new(AtomicU64::new(0));
    let tasks = TaskTracker::new();
    let cpu = CpuMeter::start(others);
    let running: Vec<_> = (0..in_flight)
        .map(|_| {
            let (request, next) = (Arc::clone(&request), Arc::clone(&next));
            tasks.spawn_on(
                async move {
                    let mut sample = Sample::default();
                    let begun = Instant::now();
                    let mut now = begun;
                    while now - begun < duration {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let bytes = request(number).await?;
                        let ended = Instant::now();
                        sample.latency.record(ended - now);
                        sample.ops += 1;
                        sample.bytes += bytes;
                        now = ended;
                    }
                    Ok(Worked {
                        sample,
                        begun,
                        ended: now,
                    })
                },
                runtime,
            )
        })
        .collect();
    let worked = runtime.block_on(async {
        let mut worked = Vec::new();
        for task in running {
            worked.push(task.await.context("a worker panicked").flatten());
        }
        worked
    });
    total(worked, cpu.seconds())
}

/// From the first begin to the last end by the workers' clocks: who waits for them may be
/// woken long after.
fn total(worked: Vec<Result<Worked>>, cpu_seconds: f64) -> Result<Sample> {
    let mut all = Sample::default();
    let mut span: Option<(Instant, Instant)> = None;
    for worked in worked {
        let worked = worked?;
        let (first, last) = span.unwrap_or((worked.begun, worked.ended));
        span = Some((first.min(worked.begun), last.max(worked.ended)));
        all.merge(worked.sample);
    }
    all.elapsed = span.map_or(Duration::ZERO, |(first, last)| last - first);
    all.cpu_seconds = cpu_seconds;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up_and_end_with_their_work() {
        let countdown = |mut left: u64| -> Step<'static> {
            Box::new(move || {
                left = left.saturating_sub(1);
                Ok((left > 0).then_some(10))
            })
        };
        let sample = threads(vec![countdown(4), countdown(8)], None, &[]).unwrap();
        assert_eq!((sample.ops, sample.bytes), (10, 100));
        let brief = Some(Duration::from_millis(5));
        let endless = threads(vec![Box::new(|| Ok(Some(1)))], brief, &[]).unwrap();
        assert!(endless.ops > 0 && endless.elapsed >= Duration::from_millis(5));
    }

    #[test]
    fn an_error_of_one_worker_is_the_runs() {
        let fine: Step<'_> = Box::new(|| Ok(None));
        let broken: Step<'_> = Box::new(|| Err(anyhow!("the cable is out")));
        let error = threads(vec![fine, broken], None, &[]).unwrap_err();
        assert!(error.to_string().contains("cable"), "{error}");
    }

    #[test]
    fn requests_are_numbered_and_their_errors_found() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let brief = Duration::from_millis(5);
        let sample = requests(runtime.handle(), 3, brief, &[], async |_| Ok(7)).unwrap();
        assert!(sample.ops >= 3 && sample.bytes == sample.ops * 7);
        let failing = async |number| {
            anyhow::ensure!(number < 5, "number {number} is too many");
            Ok(0)
        };
        let minute = Duration::from_secs(60);
        let error = requests(runtime.handle(), 2, minute, &[], failing);
        assert!(error.unwrap_err().to_string().contains("too many"));
    }
}

//! Reading a process's admin endpoint.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};
use millpond_process::SharedRegistry;
use prometheus_client::encoding::text::encode;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Status and body of one GET.
///
/// # Errors
/// When nothing answers at `addr`.
pub fn http_get(addr: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(addr).with_context(|| format!("cannot reach {addr}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // HTTP/1.0, so that the body is neither chunked nor followed by another.
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {addr}\r\n\r\n")?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    let (head, body) = reply.split_once("\r\n\r\n").context("no HTTP reply")?;
    let status = head.split(' ').nth(1).context("no HTTP status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// The metrics of a process at one moment.
#[derive(Debug, Clone)]
pub struct Metrics {
    text: String,
}

impl Metrics {
    /// Scrapes `/metrics` at `addr`.
    ///
    /// # Errors
    /// When nothing answers.
    pub fn scrape(addr: &str) -> Result<Self> {
        Ok(Self {
            text: http_get(addr, "/metrics")?.1,
        })
    }

    /// The metrics of a registry of this process.
    ///
    /// # Errors
    /// When one of them cannot be written.
    pub fn of_registry(registry: &SharedRegistry) -> Result<Self> {
        let mut text = String::new();
        encode(&mut text, &registry.lock())?;
        Ok(Self { text })
    }

    /// The sum of a metric over all its labels that hold every text of `labels`
    /// (`tier="memory"`); 0 if there is none.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.text
            .lines()
            .filter_map(|line| line.strip_prefix(name))
            .filter(|rest| rest.starts_with(['{', ' ']))
            .filter(|rest| labels.iter().all(|label| rest.contains(label)))
            .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// The names of all metrics, for messages.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self
            .text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split(['{', ' ']).next())
            .collect();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_narrow_a_sum() {
        let text = "# HELP a_total x.\na_total{tier=\"mem\",ok=\"y\"} 2\na_total{tier=\"disk\"} 3\n\
                    a_total_other 100\nb 7\n# EOF\n";
        let metrics = Metrics {
            text: text.to_owned(),
        };
        assert_eq!(metrics.sum("a_total", &[]), 5.0);
        assert_eq!(metrics.sum("a_total", &["tier=\"mem\""]), 2.0);
        assert_eq!(metrics.sum("b", &[]), 7.0);
        assert_eq!(metrics.sum("c", &[]), 0.0);
        assert_eq!(metrics.names(), ["a_total", "a_total_other", "b"]);
    }
}

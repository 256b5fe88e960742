//! What `millpond dev` found out: one table or one JSON object.

use millpond_client::SourceBytes;
use serde::Serialize;

use crate::output::{self, human};

/// The whole result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) cold: Pass,
    pub(crate) warm: Pass,
    pub(crate) node_loss: Pass,
    /// Bytes of file data read from the UFS in the cold and the warm pass, by nodes and
    /// client, divided by the bytes of the dataset; rounded to 4 places.
    pub(crate) ufs_amplification: f64,
    pub(crate) dataset: Dataset,
    pub(crate) nodes: usize,
    pub(crate) block_size: u64,
    pub(crate) readers: usize,
    /// `mount` or `library`.
    pub(crate) access: &'static str,
    /// Why there is no mount.
    pub(crate) no_mount: Option<String>,
    /// The node that was killed.
    pub(crate) killed: String,
    /// The first few errors and mismatches, in words.
    pub(crate) problems: Vec<String>,
}

/// What was read.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Dataset {
    pub(crate) ufs: String,
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}

/// One reading of everything.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct Pass {
    /// Bytes that the readers got.
    pub(crate) bytes: u64,
    /// From the first byte to the last, comparison included.
    pub(crate) seconds: f64,
    pub(crate) sources: Sources,
    /// Files that could not be read to their end.
    pub(crate) errors: u64,
    /// Files with a byte that differs from the source.
    pub(crate) mismatches: u64,
}

/// Bytes by where they came from.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Sources {
    pub(crate) kernel: u64,
    pub(crate) memory: u64,
    pub(crate) disk: u64,
    pub(crate) peer: u64,
    pub(crate) ufs: u64,
}

impl Sources {
    /// The sources of `read` bytes, of which the client handed out `after` less `before`. What
    /// it did not hand out came from the kernel's page cache.
    pub(crate) fn between(before: &SourceBytes, after: &SourceBytes, read: u64) -> Self {
        let handed = after.total() - before.total();
        Self {
            kernel: read.saturating_sub(handed),
            memory: after.memory - before.memory,
            disk: after.disk - before.disk,
            peer: after.peer - before.peer,
            ufs: after.ufs - before.ufs,
        }
    }

    fn total(&self) -> u64 {
        self.kernel + self.memory + self.disk + self.peer + self.ufs
    }
}

impl Pass {
    fn gib_per_second(&self) -> f64 {
        if self.seconds > 0.0 {
            self.bytes as f64 / self.seconds / f64::from(1 << 30)
        } else {
            0.0
        }
    }

    fn cells(&self, name: &str) -> Vec<String> {
        let sources = &self.sources;
        let total = sources.total().max(1) as f64;
        let share = |bytes: u64| format!("{:.1} %", bytes as f64 * 100.0 / total);
        vec![
            name.to_owned(),
            human(self.bytes),
            format!("{:.2}", self.seconds),
            format!("{:.2}", self.gib_per_second()),
            share(sources.kernel),
            share(sources.memory),
            share(sources.disk),
            share(sources.peer),
            share(sources.ufs),
            self.errors.to_string(),
            self.mismatches.to_string(),
        ]
    }
}

impl Report {
    /// UFS bytes divided by unique bytes; 0 for an empty dataset.
    pub(crate) fn amplification(ufs_bytes: u64, unique: u64) -> f64 {
        if unique == 0 {
            return 0.0;
        }
        (ufs_bytes as f64 / unique as f64 * 10_000.0).round() / 10_000.0
    }

    fn passes(&self) -> [(&'static str, &Pass); 3] {
        [
            ("cold", &self.cold),
            ("warm", &self.warm),
            ("node loss", &self.node_loss),
        ]
    }

    /// The passes' errors and mismatches together.
    pub(crate) fn faults(&self) -> (u64, u64) {
        let sum = |of: fn(&Pass) -> u64| self.passes().iter().map(|(_, pass)| of(pass)).sum();
        (sum(|pass| pass.errors), sum(|pass| pass.mismatches))
    }

    /// Prints it on stdout.
    pub(crate) fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            return output::json(self);
        }
        Ok(output::line(self.text())?)
    }

    fn text(&self) -> String {
        let mut table = output::table(&[
            "pass",
            ">bytes",
            ">seconds",
            ">GiB/s",
            ">kernel",
            ">memory",
            ">disk",
            ">peer",
            ">UFS",
            ">errors",
            ">mismatches",
        ]);
        table.add_rows(self.passes().map(|(name, pass)| pass.cells(name)));
        let mut text = format!(
            "{} files, {} from {}\n{} cache nodes, blocks of {}, {} readers, through the {}\n{}\n",
            self.dataset.files,
            human(self.dataset.bytes),
            self.dataset.ufs,
            self.nodes,
            human(self.block_size),
            self.readers,
            if self.access == "mount" {
                "mount"
            } else {
                "client library"
            },
            table.trim_fmt(),
        );
        text.push_str(&format!(
            "UFS bytes / unique bytes, cold and warm together: {:.2}\n\n",
            self.ufs_amplification,
        ));
        text.push_str(&self.notes());
        for problem in &self.problems {
            text.push_str(&format!("\n! {problem}"));
        }
        text
    }

    fn notes(&self) -> String {
        let kernel = match &self.no_mount {
            None => {
                "The warm pass keeps the kernel's page cache; it is dropped before the node-loss \
                 pass, so that cache nodes are asked again."
                    .to_owned()
            }
            Some(why) => format!("No mount: {why}."),
        };
        format!(
            "kernel: page cache; memory, disk: this host's tiers; peer: held by a cache node; \
             UFS: read for this.\n{kernel}\n{} was killed while the node-loss pass was reading. \
             Times include the comparison of every byte with the source.",
            self.killed,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let sources = Sources {
            peer: 512,
            ufs: 512,
            ..Sources::default()
        };
        let pass = Pass {
            bytes: 1024,
            seconds: 0.5,
            sources,
            errors: 1,
            mismatches: 2,
        };
        Report {
            cold: pass.clone(),
            warm: pass.clone(),
            node_loss: pass,
            ufs_amplification: 1.0,
            dataset: Dataset {
                ufs: "file:///x".to_owned(),
                files: 3,
                bytes: 1024,
            },
            nodes: 3,
            block_size: 4 << 20,
            readers: 4,
            access: "mount",
            no_mount: None,
            killed: "node-3".to_owned(),
            problems: vec!["a/b: differs at byte 7".to_owned()],
        }
    }

    #[test]
    fn the_json_has_the_promised_keys() {
        let json = serde_json::to_value(report()).unwrap();
        for pass in ["cold", "warm", "node_loss"] {
            let pass = &json[pass];
            assert_eq!(pass["bytes"], 1024);
            assert_eq!(pass["seconds"], 0.5);
            assert_eq!(
                (&pass["errors"], &pass["mismatches"]),
                (&1.into(), &2.into())
            );
            let sources = pass["sources"].as_object().unwrap();
            let keys: Vec<_> = sources.keys().map(String::as_str).collect();
            assert_eq!(keys, ["disk", "kernel", "memory", "peer", "ufs"]);
        }
        assert_eq!(json["ufs_amplification"], 1.0);
    }

    #[test]
    fn the_table_shows_shares_and_problems() {
        let text = report().text();
        assert!(
            text.contains("50.0 %") && text.contains("differs at byte 7"),
            "{text}"
        );
        assert_eq!(report().faults(), (3, 6));
    }

    #[test]
    fn what_the_client_did_not_hand_out_came_from_the_kernel() {
        let before = SourceBytes::default();
        let after = SourceBytes {
            memory: 1,
            disk: 2,
            peer: 3,
            ufs: 4,
        };
        let sources = Sources::between(&before, &after, 15);
        assert_eq!((sources.kernel, sources.total()), (5, 15));
        assert_eq!(Sources::between(&before, &after, 10).kernel, 0);
    }

    #[test]
    fn amplification_is_rounded_and_defined_for_nothing() {
        assert_eq!(Report::amplification(100_000, 100_000), 1.0);
        assert_eq!(Report::amplification(1, 3), 0.3333);
        assert_eq!(Report::amplification(0, 0), 0.0);
    }
}

//! The document that a run leaves.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::noise::{Noise, NoiseMeter};
use super::row::Row;
use super::tool::Tool;

/// The version of the document's form. A reader refuses others.
pub const SCHEMA: u32 = 1;

/// All that a run says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What the run is called in comparisons: the product, or `before`.
    pub label: String,
    /// The command line.
    pub command: Vec<String>,
    /// When it began, RFC 3339.
    pub started: String,
    /// How long it took.
    pub seconds: f64,
    /// The harness.
    pub tool: Tool,
    /// The machine.
    pub machine: Machine,
    /// What disturbed it.
    pub noise: Noise,
    /// The settings that were in force, by name.
    pub settings: BTreeMap<String, String>,
    /// The goals that these figures decide: `rows` in the document.
    #[serde(default, rename = "rows")]
    pub goals: Vec<GoalRow>,
    /// The figures, each beside its limit.
    pub figures: Vec<Row>,
}

/// One goal, held against its row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GoalRow {
    /// `fuse.kernel_warm.seq_1m`.
    pub id: String,
    /// The figure, in `unit`.
    pub value: Option<f64>,
    /// Its unit.
    pub unit: String,
    /// What it is divided by, in the same unit.
    pub limit: Option<f64>,
    /// What the goal is about: value over limit, or the value where nothing divides it.
    pub ratio: Option<f64>,
    /// The goal: `>= 0.90`.
    pub goal: String,
    /// Whether it is met.
    pub met: bool,
    /// Spread, cause, or what is not built yet.
    pub note: String,
}

/// A run under way.
#[derive(Debug)]
pub struct Recorder {
    start: Instant,
    started: SystemTime,
    noise: NoiseMeter,
}

impl Recorder {
    /// From now on.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            started: SystemTime::now(),
            noise: NoiseMeter::start(),
        }
    }

    /// The document of what was measured until now.
    pub fn record(
        &self,
        label: &str,
        settings: BTreeMap<String, String>,
        figures: Vec<Row>,
    ) -> RunRecord {
        RunRecord {
            schema: SCHEMA,
            label: label.to_owned(),
            command: std::env::args().collect(),
            started: humantime::format_rfc3339_seconds(self.started).to_string(),
            seconds: self.start.elapsed().as_secs_f64(),
            tool: Tool::this(),
            machine: Machine::this(),
            noise: self.noise.so_far(),
            settings,
            goals: Vec::new(),
            figures,
        }
    }
}

impl RunRecord {
    /// Writes the document to `path`, in place of one that is there.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_string(self)?;
        fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads a document that a run left.
    ///
    /// # Errors
    /// When the file cannot be read, is not such a document, or is one of another form.
    pub fn load(path: &Path) -> Result<Self> {
        let cannot = || format!("cannot read the run {}", path.display());
        let text = fs::read_to_string(path).with_context(cannot)?;
        let value: serde_json::Value = serde_json::from_str(&text).with_context(cannot)?;
        let schema = value.get("schema").and_then(serde_json::Value::as_u64);
        ensure!(
            schema == Some(u64::from(SCHEMA)),
            "{}: it is not a run of this millpond-bench (schema {}, not {SCHEMA}); make it with --json",
            path.display(),
            schema.map_or_else(|| "missing".to_owned(), |schema| schema.to_string()),
        );
        serde_json::from_value(value).with_context(cannot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_survives_the_way_to_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        let record = Recorder::start().record("x", BTreeMap::new(), Vec::new());
        record.save(&path).unwrap();
        assert_eq!(RunRecord::load(&path).unwrap().label, "x");
    }

    #[test]
    fn another_form_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        for text in ["{\"schema\": 99}", "{}", "[]"] {
            fs::write(&path, text).unwrap();
            let error = format!("{:#}", RunRecord::load(&path).unwrap_err());
            assert!(error.contains("--json"), "{error}");
        }
        fs::write(&path, "no").unwrap();
        assert!(RunRecord::load(&path).is_err());
    }
}

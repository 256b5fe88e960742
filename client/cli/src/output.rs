//! What the commands print on stdout: the one place that writes there.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, LineStyle, Table, TableStyle};
use serde::Serialize;

/// How a command prints its result.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON value.
    Json,
}

/// The flag of every command that prints a result.
#[derive(Debug, Default, Clone, Copy, clap::Args)]
pub(crate) struct OutputArgs {
    /// How to print the result
    #[arg(short = 'o', long = "output", value_enum, default_value = "table")]
    pub(crate) format: Format,
}

impl OutputArgs {
    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }
}

/// Prints `text` and a newline.
pub(crate) fn line(text: impl AsRef<str>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref().as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Prints `value` as indented JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(line(serde_json::to_string_pretty(value)?)?)
}

/// Prints raw bytes.
pub(crate) fn bytes(data: &[u8]) -> io::Result<()> {
    io::stdout().lock().write_all(data)
}

/// Flushes what [`bytes()`] wrote.
pub(crate) fn flush() -> io::Result<()> {
    io::stdout().lock().flush()
}

/// A JSON array that is printed while it comes, however long it is.
#[derive(Debug, Default)]
pub(crate) struct JsonArray {
    started: bool,
}

impl JsonArray {
    /// Prints one element.
    pub(crate) fn push(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let lead = if self.started { ",\n  " } else { "[\n  " };
        self.started = true;
        let text = format!("{lead}{}", serde_json::to_string(value)?);
        Ok(bytes(text.as_bytes())?)
    }

    /// Closes the array.
    pub(crate) fn finish(self) -> io::Result<()> {
        line(if self.started { "\n]" } else { "[]" })
    }
}

/// A line below the header and nothing else.
const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// A table with `header`; columns whose name starts with `>` are aligned to the right.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE);
    table.set_header(
        header
            .iter()
            .map(|name| Cell::new(name.trim_start_matches('>'))),
    );
    for (index, name) in header.iter().enumerate() {
        if let (true, Some(column)) = (name.starts_with('>'), table.column_mut(index)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Bytes for people: `1.5 GiB`.
pub(crate) fn human(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

/// Tells the user something beside the result, on stderr.
pub(crate) fn notice(text: impl AsRef<str>) {
    // Nobody is told that nobody listens.
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

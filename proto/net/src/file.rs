//! Small files that hold secrets: read whole, written aside and renamed, owner-only.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::NetError;

/// Reads a file; none if it does not exist.
pub(crate) fn read(path: &Path) -> Result<Option<String>, NetError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(NetError::File {
            doing: "read",
            path: path.to_owned(),
            source,
        }),
    }
}

/// Replaces a file atomically, mode 0600, and makes it durable. Creates its directory.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), NetError> {
    let failed = |source| NetError::File {
        doing: "write",
        path: path.to_owned(),
        source,
    };
    replace(path, content).map_err(failed)
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    fs::create_dir_all(dir)?;
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut aside = name.to_owned();
    aside.push(format!(".{:016x}.tmp", rand::random::<u64>()));
    let aside = dir.join(aside);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&aside)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&aside, path))
        .and_then(|()| fs::File::open(dir)?.sync_all());
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&aside);
    }
    written
}

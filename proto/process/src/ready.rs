//! The line on stdout that says a process is up.

use std::io::Write;

/// Prints exactly one line, `ready key=value key=value`, on stdout and flushes it. Whoever
/// started the process reads the real addresses from it, so ports may be 0 everywhere.
///
/// A closed stdout is ignored: nobody is waiting then.
pub fn announce_ready(fields: &[(&str, String)]) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(line(fields).as_bytes());
    let _ = out.flush();
}

/// The value of `key` in a ready line; none if the line is not one or lacks the key.
pub fn field<'l>(line: &'l str, key: &str) -> Option<&'l str> {
    let rest = line.trim_end().strip_prefix("ready ")?;
    rest.split(' ')
        .find_map(|field| field.strip_prefix(key)?.strip_prefix('='))
}

/// Spaces and newlines in values would break the line, so they are written as `%20`, `%0A`.
fn line(fields: &[(&str, String)]) -> String {
    let mut line = "ready".to_owned();
    for (key, value) in fields {
        let value = value.replace(' ', "%20").replace('\n', "%0A");
        line.push_str(&format!(" {key}={value}"));
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_line_is_one_line_and_reads_back() {
        let fields = [
            ("listen", "127.0.0.1:1".to_owned()),
            ("mount", "/a b\nc".to_owned()),
        ];
        let line = line(&fields);
        assert_eq!(line, "ready listen=127.0.0.1:1 mount=/a%20b%0Ac\n");
        assert_eq!(field(&line, "listen"), Some("127.0.0.1:1"));
        assert_eq!(field(&line, "mount"), Some("/a%20b%0Ac"));
        assert_eq!(field(&line, "list"), None);
        assert_eq!(field("warning listen=x", "listen"), None);
    }
}

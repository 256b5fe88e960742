//! What an answer's head says.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use millpond_proto::FileVersion;
use reqwest::Response;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName, LAST_MODIFIED};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::digest::Sum;

/// The parts of an answer's head that matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) length: Option<u64>,
    /// Of a partial answer, the bytes that it holds.
    pub(super) range: Option<Range<u64>>,
    /// Of a partial answer, the length of the whole.
    pub(super) of: Option<u64>,
    /// Of the whole.
    pub(super) sum: Option<Sum>,
    e_tag: Option<String>,
    modified_ns: Option<i64>,
}

impl Answer {
    pub(super) fn of(response: &Response) -> Self {
        let header = |name: HeaderName| response.headers().get(name)?.to_str().ok();
        Self {
            status: response.status().as_u16(),
            length: header(CONTENT_LENGTH).and_then(|text| text.parse().ok()),
            range: header(CONTENT_RANGE).and_then(parse_content_range),
            of: header(CONTENT_RANGE).and_then(|text| text.rsplit_once('/')?.1.parse().ok()),
            sum: Sum::of(response.headers()),
            e_tag: header(ETAG).map(str::to_owned),
            modified_ns: header(LAST_MODIFIED).and_then(parse_http_date),
        }
    }

    /// The strongest validator.
    pub(super) fn version(&self) -> Option<FileVersion> {
        match &self.e_tag {
            Some(e_tag) => Some(FileVersion::ETag(e_tag.as_str().into())),
            None => self.modified_ns.map(FileVersion::Modified),
        }
    }

    pub(super) fn mtime(&self) -> Option<SystemTime> {
        let nanos = u64::try_from(self.modified_ns?).ok()?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos))
    }
}

/// `mtime_ns` as HTTP writes a date: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(super) fn http_date(mtime_ns: i64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp_nanos(mtime_ns.into()).ok()?;
    let text = time.format(&Rfc2822).ok()?;
    Some(text.replace("+0000", "GMT"))
}

fn parse_http_date(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    i64::try_from(time.unix_timestamp_nanos()).ok()
}

/// `bytes 0-9/100`.
fn parse_content_range(text: &str) -> Option<Range<u64>> {
    let (range, _size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let end = last.parse::<u64>().ok()?.checked_add(1)?;
    Some(first.parse().ok()?..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_go_both_ways() {
        let text = "Sun, 06 Nov 1994 08:49:37 GMT";
        let nanos = parse_http_date(text).expect("a date");
        assert_eq!(nanos, 784_111_777_000_000_000);
        assert_eq!(http_date(nanos).as_deref(), Some(text));
    }

    #[test]
    fn content_ranges_are_half_open_here() {
        assert_eq!(parse_content_range("bytes 5-9/100"), Some(5..10));
        assert_eq!(parse_content_range("bytes 5-9/*"), Some(5..10));
        assert_eq!(parse_content_range("bytes */100"), None);
    }
}

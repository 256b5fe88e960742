//! Reading the XML of listings and errors, as far as it is needed.
//!
//! The stores' client fails a whole page because of one key that it cannot represent, and
//! trims white space from names. So the names are read here, from the same bytes, and the
//! elements with unrepresentable ones are cut out before the client sees them. The documents
//! are machine-made: no comments, no CDATA, `<` and `&` in text always escaped.

use bytes::Bytes;

use crate::name;

/// What a page of a listing names, in the document's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    /// The keys of objects, markers included.
    pub(crate) keys: Vec<String>,
    /// The common prefixes, each ending in `/`.
    pub(crate) prefixes: Vec<String>,
    /// How many were cut out.
    pub(crate) hidden: u64,
}

/// `body` without the elements that no file can stand for, and what remains in it.
pub(crate) fn list(body: Bytes, prefix: &str) -> (Bytes, Listed) {
    let mut listed = Listed::default();
    let Ok(text) = std::str::from_utf8(&body) else {
        return (body, listed);
    };
    let mut kept = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(element) = Element::next(text, at) {
        at = element.end;
        let Some(name) = element.name else { continue };
        if is_shown(&name, prefix, element.is_prefix) {
            match element.is_prefix {
                true => listed.prefixes.push(name),
                false => listed.keys.push(name),
            }
        } else {
            listed.hidden += 1;
            kept.push_str(&text[copied..element.start]);
            copied = element.end;
        }
    }
    if listed.hidden == 0 {
        return (body, listed);
    }
    kept.push_str(&text[copied..]);
    (kept.into(), listed)
}

/// The text of the first `<Code>` element of an error document.
pub(crate) fn error_code(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let code = unescape(inner(text, "Code")?)?;
    (code.len() < 100 && code.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(code)
}

/// Whether the client can represent the key, and a file or directory can stand for it.
fn is_shown(key: &str, prefix: &str, is_prefix: bool) -> bool {
    if !key.starts_with(prefix) {
        return false;
    }
    // The prefix may end within a name.
    let directory = prefix.rfind('/').map_or(0, |slash| slash + 1);
    let rest = &key[directory..];
    let name = match is_prefix {
        true => rest.strip_suffix('/').unwrap_or(rest),
        false => rest,
    };
    let is_marker = rest.is_empty() && !is_prefix && !prefix.is_empty();
    is_marker || name::fault(name).is_none()
}

/// One element of a listing that names something.
struct Element {
    start: usize,
    end: usize,
    is_prefix: bool,
    name: Option<String>,
}

impl Element {
    /// The first one at or after `from`.
    fn next(text: &str, from: usize) -> Option<Self> {
        let mut from = from;
        loop {
            let start = from + text[from..].find('<')?;
            let rest = &text[start + 1..];
            let found = ELEMENTS.iter().find(|(tag, _, _)| {
                rest.strip_prefix(tag)
                    .is_some_and(|after| after.starts_with(['>', ' ']))
            });
            let Some((tag, name_tag, is_prefix)) = found else {
                from = start + 1;
                continue;
            };
            let close = format!("</{tag}>");
            let end = start + text[start..].find(&close)? + close.len();
            return Some(Self {
                start,
                end,
                is_prefix: *is_prefix,
                name: inner(&text[start..end], name_tag).and_then(unescape),
            });
        }
    }
}

/// The text within the first element `tag`.
pub(crate) fn inner<'a>(text: &'a str, tag: &str) -> Option<&'a str> {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let start = text.find(&open)? + open.len();
    let end = start + text[start..].find(&close)?;
    Some(&text[start..end])
}

/// Text without its escapes; none if there is one that XML has not.
pub(crate) fn unescape(text: &str) -> Option<String> {
    if !text.contains('&') {
        return Some(text.to_owned());
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        let (entity, after) = rest[at + 1..].split_once(';')?;
        out.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = entity.strip_prefix('#')?;
                let code = match number.strip_prefix(['x', 'X']) {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(code)?
            }
        });
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

/// The elements of a listing, the child that names them, and whether they are prefixes:
/// those of S3 and GCS, then those of Azure.
const ELEMENTS: [(&str, &str, bool); 4] = [
    ("Contents", "Key", false),
    ("CommonPrefixes", "Prefix", true),
    ("BlobPrefix", "Name", true),
    ("Blob", "Name", false),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unrepresentable_names_are_cut_out_and_the_rest_is_untouched() {
        let body = "<?xml?><ListBucketResult><Prefix>d/</Prefix>\
            <Contents><Key>d/</Key><Size>0</Size></Contents>\
            <Contents><Key>d/a &amp;&#x20;b </Key></Contents>\
            <Contents><Key>d/..</Key></Contents>\
            <Contents><Key>d/c&#1;</Key></Contents>\
            <CommonPrefixes><Prefix>d//</Prefix></CommonPrefixes>\
            <CommonPrefixes><Prefix>d/e/</Prefix></CommonPrefixes></ListBucketResult>";
        let (out, listed) = list(Bytes::from_static(body.as_bytes()), "d/");
        assert_eq!(listed.keys, ["d/", "d/a & b "]);
        assert_eq!(listed.prefixes, ["d/e/"]);
        assert_eq!(listed.hidden, 3);
        assert_eq!(
            out,
            "<?xml?><ListBucketResult><Prefix>d/</Prefix>\
            <Contents><Key>d/</Key><Size>0</Size></Contents>\
            <Contents><Key>d/a &amp;&#x20;b </Key></Contents>\
            <CommonPrefixes><Prefix>d/e/</Prefix></CommonPrefixes></ListBucketResult>"
        );
    }

    #[test]
    fn a_prefix_may_end_within_a_name() {
        let body = "<Contents><Key>d/a</Key></Contents><Contents><Key>d/a.b</Key></Contents>\
            <CommonPrefixes><Prefix>d/a/</Prefix></CommonPrefixes>\
            <CommonPrefixes><Prefix>d/a&#2;/</Prefix></CommonPrefixes>";
        let (_, listed) = list(Bytes::from_static(body.as_bytes()), "d/a");
        assert_eq!(listed.keys, ["d/a", "d/a.b"]);
        assert_eq!((listed.prefixes, listed.hidden), (vec!["d/a/".into()], 1));
    }

    #[test]
    fn azure_names_are_read_too() {
        let body = "<EnumerationResults><Blobs><Blob><Name>a</Name></Blob>\
            <BlobPrefix><Name>//</Name></BlobPrefix></Blobs></EnumerationResults>";
        let (out, listed) = list(Bytes::from_static(body.as_bytes()), "");
        assert_eq!((listed.keys, listed.hidden), (vec!["a".into()], 1));
        assert!(!String::from_utf8_lossy(&out).contains("BlobPrefix"));
    }

    #[test]
    fn error_codes_are_words() {
        let body = b"<Error><Code>NoSuchBucket</Code><Message>x</Message></Error>";
        assert_eq!(error_code(body).as_deref(), Some("NoSuchBucket"));
        assert_eq!(error_code(b"<Code>not a word</Code>"), None);
        assert_eq!(error_code(b"plain"), None);
    }
}

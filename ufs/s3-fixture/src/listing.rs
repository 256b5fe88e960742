//! ListObjects: which keys and common prefixes a page holds. Pure.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::Object;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// Only keys that start with it.
    pub prefix: String,
    /// Keys that hold it after the prefix are folded into one common prefix.
    pub delimiter: Option<String>,
    /// Only keys greater than it; common prefixes are given again while keys after it
    /// remain beneath them.
    pub start_after: Option<String>,
    /// A token of an earlier page; stronger than `start_after`.
    pub token: Option<String>,
    /// The most keys and common prefixes together.
    pub max_keys: usize,
}

/// One page, keys and prefixes each in the order of their UTF-8 bytes.
#[derive(Debug, Clone, Default)]
pub struct ListedPage {
    /// The objects.
    pub objects: Vec<(String, Arc<Object>)>,
    /// The common prefixes.
    pub prefixes: Vec<String>,
    /// Continues after this page; `None` on the last one.
    pub next: Option<String>,
}

/// Tokens begin with one of these, so that a prefix is skipped whole.
const AFTER_KEY: char = 'k';
const AFTER_PREFIX: char = 'p';

pub(crate) fn list(
    objects: &BTreeMap<String, Arc<Object>>,
    request: &ListRequest,
) -> Result<ListedPage, InvalidToken> {
    let mut page = ListedPage::default();
    let mut from = match &request.token {
        Some(token) => decode_token(token)?,
        None => match &request.start_after {
            Some(key) => Bound::Excluded(key.clone()),
            None => Bound::Unbounded,
        },
    };
    if is_before(&from, &request.prefix) {
        from = Bound::Included(request.prefix.clone());
    }
    let mut last = None;
    let mut keys = objects.range::<String, _>((from, Bound::Unbounded));
    while let Some((key, object)) = keys.next() {
        let Some(rest) = key.strip_prefix(&request.prefix) else {
            break;
        };
        if page.objects.len() + page.prefixes.len() >= request.max_keys {
            page.next = last;
            break;
        }
        let folded = request
            .delimiter
            .as_ref()
            .and_then(|delimiter| rest.find(delimiter.as_str()).map(|at| at + delimiter.len()));
        match folded {
            None => {
                last = Some(format!("{AFTER_KEY}{}", hex::encode(key)));
                page.objects.push((key.clone(), Arc::clone(object)));
            }
            Some(end) => {
                let prefix = &key[..request.prefix.len() + end];
                last = Some(format!("{AFTER_PREFIX}{}", hex::encode(prefix)));
                page.prefixes.push(prefix.to_owned());
                keys = objects.range::<String, _>((after_prefix(prefix), Bound::Unbounded));
            }
        }
    }
    Ok(page)
}

/// The token was not made by this server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidToken;

fn decode_token(token: &str) -> Result<Bound<String>, InvalidToken> {
    let mut chars = token.chars();
    let kind = chars.next().ok_or(InvalidToken)?;
    let text = hex::decode(chars.as_str()).map_err(|_| InvalidToken)?;
    let text = String::from_utf8(text).map_err(|_| InvalidToken)?;
    match kind {
        AFTER_KEY => Ok(Bound::Excluded(text)),
        AFTER_PREFIX => Ok(after_prefix(&text)),
        _ => Err(InvalidToken),
    }
}

/// The first position after every key that starts with `prefix`.
fn after_prefix(prefix: &str) -> Bound<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // `Step` skips the surrogates, which are not chars.
        if let Some(next) = (last..=char::MAX).nth(1) {
            chars.push(next);
            return Bound::Included(chars.into_iter().collect());
        }
    }
    // Nothing sorts after a prefix of U+10FFFF alone.
    Bound::Excluded(prefix.to_owned() + &char::MAX.to_string().repeat(1024))
}

fn is_before(bound: &Bound<String>, prefix: &str) -> bool {
    match bound {
        Bound::Unbounded => true,
        Bound::Included(key) | Bound::Excluded(key) => key.as_str() < prefix,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Content;

    fn tree(keys: &[&str]) -> BTreeMap<String, Arc<Object>> {
        let object = Arc::new(Object::new(Content::from("x"), Default::default()));
        keys.iter()
            .map(|key| ((*key).to_owned(), Arc::clone(&object)))
            .collect()
    }

    fn all(
        objects: &BTreeMap<String, Arc<Object>>,
        mut request: ListRequest,
    ) -> (Vec<String>, Vec<String>, usize) {
        let (mut keys, mut prefixes, mut pages) = (vec![], vec![], 0);
        loop {
            let page = list(objects, &request).unwrap();
            keys.extend(page.objects.into_iter().map(|(key, _)| key));
            prefixes.extend(page.prefixes);
            pages += 1;
            match page.next {
                Some(next) => request.token = Some(next),
                None => return (keys, prefixes, pages),
            }
        }
    }

    const KEYS: [&str; 11] = [
        "/lead", "a", "a b/ü", "a//b", "a/b", "a/b/c", "a/z", "a%2Fb", "b/1", "b/2", "c",
    ];

    #[test]
    fn every_page_size_lists_the_same() {
        let objects = tree(&KEYS);
        for (prefix, delimiter) in [("", None), ("", Some("/")), ("a/", Some("/")), ("a", None)] {
            let ask = |max_keys| {
                let request = ListRequest {
                    prefix: prefix.to_owned(),
                    delimiter: delimiter.map(str::to_owned),
                    max_keys,
                    ..Default::default()
                };
                let (keys, prefixes, pages) = all(&objects, request);
                (keys, prefixes, pages)
            };
            let (keys, prefixes, pages) = ask(1000);
            assert_eq!(pages, 1);
            for max_keys in 1..6 {
                let (k, p, pages) = ask(max_keys);
                assert_eq!((k, p), (keys.clone(), prefixes.clone()));
                assert_eq!(pages, (keys.len() + prefixes.len()).div_ceil(max_keys));
            }
        }
    }

    #[test]
    fn a_delimiter_folds_what_lies_beneath() {
        let objects = tree(&KEYS);
        let request = ListRequest {
            delimiter: Some("/".to_owned()),
            max_keys: 1000,
            ..Default::default()
        };
        let (keys, prefixes, _) = all(&objects, request.clone());
        assert_eq!(keys, ["a", "a%2Fb", "c"]);
        assert_eq!(prefixes, ["/", "a b/", "a/", "b/"]);
        let (keys, prefixes, _) = all(
            &objects,
            ListRequest {
                prefix: "a/".to_owned(),
                ..request
            },
        );
        assert_eq!(keys, ["a/b", "a/z"]);
        assert_eq!(prefixes, ["a//", "a/b/"]);
    }

    #[test]
    fn start_after_is_exclusive() {
        let objects = tree(&KEYS);
        let request = ListRequest {
            start_after: Some("b/1".to_owned()),
            max_keys: 1000,
            ..Default::default()
        };
        assert_eq!(all(&objects, request).0, ["b/2", "c"]);
    }

    #[test]
    fn a_foreign_token_is_refused() {
        let request = ListRequest {
            token: Some("zz".to_owned()),
            max_keys: 1,
            ..Default::default()
        };
        assert_eq!(list(&tree(&KEYS), &request).unwrap_err(), InvalidToken);
    }
}

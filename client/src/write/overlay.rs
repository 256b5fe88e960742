//! How what is not in the store yet shows in look-ups and listings of this client.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;

use crate::attr::DirEntry;
use crate::core::Core;
use crate::listing::{Page, Pages};
use crate::lookup::Found;

impl Core {
    /// What is being written at the normalized `path`, as a look-up has it. Nobody may believe
    /// it for any time.
    pub(crate) fn drafted(&self, path: &str) -> Option<Found> {
        let draft = self.drafts.changed(path)?;
        Some(Found {
            attr: Some(Arc::new(draft.attr())),
            valid: Duration::ZERO,
        })
    }

    /// What is being written in the directory at the normalized `path`, by name.
    pub(crate) fn drafted_in(&self, path: &str) -> BTreeMap<Box<str>, DirEntry> {
        let below = self.drafts.below(path).into_iter();
        let entry = |(at, draft): (Box<str>, Arc<super::draft::Draft>)| {
            let name = at.rsplit_once('/')?.1;
            let in_it = at.len() - name.len() == path.trim_end_matches('/').len() + 1;
            (in_it && draft.is_changed()).then(|| {
                let entry = DirEntry {
                    name: name.into(),
                    attr: Arc::new(draft.attr()),
                };
                (Box::from(name), entry)
            })
        };
        below.filter_map(entry).collect()
    }
}

/// `pages` of a directory with what is being written in it: each name once, as it is here.
pub(crate) fn over(pages: Pages, drafted: BTreeMap<Box<str>, DirEntry>) -> Pages {
    if drafted.is_empty() {
        return pages;
    }
    stream::unfold(Some((pages, drafted)), |state| async {
        let (mut pages, mut drafted) = state?;
        match pages.next().await {
            Some(Ok(page)) => {
                let page = page.replaced(|entry| drafted.remove(&*entry.name));
                Some((Ok(page), Some((pages, drafted))))
            }
            Some(Err(error)) => Some((Err(error), None)),
            // The names that the store does not have yet.
            None if drafted.is_empty() => None,
            None => Some((Ok(Page::unbelieved(drafted.into_values())), None)),
        }
    })
    .boxed()
}

//! A store in the memory of this process, with the semantics of an object store: for tests
//! and for trying things out.

mod upload;

use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, Range};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use millpond_proto::{ErrorKind, FileVersion, Refusal};
use parking_lot::{Mutex, RwLock};

use crate::error::{Op, UfsError};
use crate::memory::upload::{MemoryUpload, Pending};
use crate::object::{Backend, Extra, ObjectMeta, RawPage, RawUploads};
use crate::ufs::ByteStream;
use crate::write::{Abilities, Condition, PartRules, Upload};

/// One store: keys and their bytes. `memory:///name` shows the store of that name, which
/// every opener in the process shares and which lives as long as the process.
///
/// Keys are whatever the caller puts, odd ones included. Every [`put`](Self::put) makes a
/// new version, even of equal bytes; versions differ between processes too.
#[derive(Debug)]
pub struct MemoryStore {
    name: String,
    objects: RwLock<Objects>,
}

#[derive(Debug, Default)]
struct Objects {
    by_key: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Pending>,
    puts: u64,
}

#[derive(Debug, Clone)]
struct Object {
    data: Bytes,
    extra: Extra,
    e_tag: Arc<str>,
    mtime: SystemTime,
}

impl MemoryStore {
    /// The store called `name`, made empty the first time it is asked for.
    pub fn named(name: &str) -> Arc<Self> {
        let mut stores = STORES.lock();
        let store = stores.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(Self {
                name: name.to_owned(),
                objects: RwLock::default(),
            })
        });
        Arc::clone(store)
    }

    /// Puts `data` at `key`, replacing what was there, and returns the new version.
    pub fn put(&self, key: &str, data: impl Into<Bytes>) -> FileVersion {
        let mut objects = self.objects.write();
        let e_tag = objects.insert(key, data.into(), Extra::default()).e_tag;
        FileVersion::ETag(e_tag)
    }

    /// The bytes of the object at `key`.
    pub fn get(&self, key: &str) -> Option<Bytes> {
        self.object(key).map(|object| object.data)
    }

    /// All keys, in order.
    pub fn keys(&self) -> Vec<String> {
        self.objects.read().by_key.keys().cloned().collect()
    }

    /// Deletes the object at `key`; whether there was one.
    pub fn delete(&self, key: &str) -> bool {
        self.objects.write().by_key.remove(key).is_some()
    }

    /// Deletes everything.
    pub fn clear(&self) {
        self.objects.write().by_key.clear();
    }

    fn object(&self, key: &str) -> Option<Object> {
        self.objects.read().by_key.get(key).cloned()
    }

    /// The page after `token`, which is the last item of the one before.
    fn page_after(&self, prefix: &str, token: Option<&str>, max: usize) -> RawPage {
        let objects = self.objects.read();
        let mut page = RawPage::default();
        let mut at: Bound<String> = match token {
            Some(token) => after(token),
            None => Bound::Included(prefix.to_owned()),
        };
        let mut last = None;
        while let Some((key, object)) = objects
            .by_key
            .range::<str, _>((at.as_ref().map(String::as_str), Bound::Unbounded))
            .next()
            .filter(|(key, _)| key.starts_with(prefix))
        {
            if page.objects.len() + page.prefixes.len() == max {
                page.next = last;
                break;
            }
            let item = match key[prefix.len()..].split_once('/') {
                Some((name, _)) => {
                    let name = format!("{prefix}{name}");
                    page.prefixes.push(format!("{name}/"));
                    format!("{PREFIX}{name}")
                }
                None => {
                    page.objects.push(object.meta(key));
                    format!("{KEY}{key}")
                }
            };
            at = after(&item);
            last = Some(item);
        }
        page
    }
}

/// Items of a listing, which are also its tokens: a key, or a common prefix without its
/// slash. A marker's key ends in a slash too, so the two need telling apart.
const KEY: char = 'k';
const PREFIX: char = 'p';

/// Where the keys after `item` begin: for a common prefix, behind all that begin with it.
fn after(item: &str) -> Bound<String> {
    match item.strip_prefix(PREFIX) {
        // '0' is the character after '/'.
        Some(name) => Bound::Included(format!("{name}0")),
        None => Bound::Excluded(item.strip_prefix(KEY).unwrap_or(item).to_owned()),
    }
}

impl Objects {
    fn insert(&mut self, key: &str, data: Bytes, extra: Extra) -> Object {
        self.puts += 1;
        let object = Object {
            data,
            extra,
            e_tag: format!("\"{}-{}\"", *PROCESS, self.puts).into(),
            mtime: SystemTime::now(),
        };
        self.by_key.insert(key.to_owned(), object.clone());
        object
    }

    /// Whether `condition` holds at `key`, whose URI is `uri`.
    fn check(&self, op: Op, key: &str, uri: &str, condition: &Condition) -> Result<(), UfsError> {
        let there = self.by_key.get(key);
        match condition {
            Condition::Any => Ok(()),
            Condition::Absent if there.is_none() => Ok(()),
            Condition::Absent => Err(UfsError::refused(
                Refusal::Exists,
                op,
                uri,
                "there is an object already",
            )),
            Condition::Version(version)
                if there.is_some_and(|object| object.version() == *version) =>
            {
                Ok(())
            }
            Condition::Version(_) => Err(UfsError::new(
                ErrorKind::Stale,
                op,
                uri,
                "the object was replaced",
            )),
        }
    }
}

impl Object {
    fn version(&self) -> FileVersion {
        FileVersion::ETag(Arc::clone(&self.e_tag))
    }

    fn meta(&self, key: &str) -> ObjectMeta {
        ObjectMeta {
            key: key.to_owned(),
            size: self.data.len() as u64,
            version: Some(self.version()),
            mtime: Some(self.mtime),
        }
    }
}

#[async_trait]
impl Backend for Arc<MemoryStore> {
    fn uri_of(&self, key: &str) -> String {
        format!("memory:///{}/{key}", self.name)
    }

    fn pages_show_their_prefix(&self) -> bool {
        true
    }

    async fn page(
        &self,
        prefix: &str,
        token: Option<String>,
        max: usize,
    ) -> Result<RawPage, UfsError> {
        Ok(self.page_after(prefix, token.as_deref(), max))
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, UfsError> {
        Ok(self.object(key).map(|object| object.meta(key)))
    }

    async fn get(
        &self,
        key: &str,
        version: &FileVersion,
        range: Range<u64>,
    ) -> Result<ByteStream, UfsError> {
        let error = |kind, cause: &str| UfsError::new(kind, Op::Read, self.uri_of(key), cause);
        let object = self
            .object(key)
            .ok_or_else(|| error(ErrorKind::NotFound, "there is no such object"))?;
        if *version != object.version() {
            return Err(error(ErrorKind::Stale, "the object was replaced"));
        }
        let len = object.data.len();
        let bounds = usize::try_from(range.start)
            .ok()
            .zip(usize::try_from(range.end).ok())
            .filter(|(start, end)| start <= end && *end <= len);
        let Some((start, end)) = bounds else {
            return Err(error(
                ErrorKind::Invalid,
                &format!("bytes {range:?} are not within its {len} bytes"),
            ));
        };
        let data = object.data.slice(start..end);
        Ok(futures::stream::iter([Ok(data)]).boxed())
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            write: true,
            if_absent: true,
            if_version: true,
            copy_parts: true,
            parts: PartRules {
                min: 1,
                ..PartRules::default()
            },
            ..Abilities::default()
        }
    }

    async fn describe(&self, key: &str) -> Result<Option<(ObjectMeta, Extra)>, UfsError> {
        let object = self.object(key);
        Ok(object.map(|object| (object.meta(key), object.extra)))
    }

    async fn put_object(
        &self,
        op: Op,
        key: &str,
        data: Bytes,
        extra: &Extra,
        condition: &Condition,
    ) -> Result<ObjectMeta, UfsError> {
        let mut objects = self.objects.write();
        objects.check(op, key, &self.uri_of(key), condition)?;
        Ok(objects.insert(key, data, extra.clone()).meta(key))
    }

    async fn delete(&self, _: Op, key: &str) -> Result<(), UfsError> {
        MemoryStore::delete(self, key);
        Ok(())
    }

    async fn copy(
        &self,
        op: Op,
        from: &ObjectMeta,
        key: &str,
        extra: Option<&Extra>,
        condition: &Condition,
    ) -> Result<ObjectMeta, UfsError> {
        let mut objects = self.objects.write();
        objects.check(op, key, &self.uri_of(key), condition)?;
        let error = |kind, cause: &str| Err(UfsError::new(kind, op, self.uri_of(&from.key), cause));
        let Some(object) = objects.by_key.get(&from.key).cloned() else {
            return error(ErrorKind::NotFound, "there is no such object");
        };
        if from.version.is_some() && from.version != Some(object.version()) {
            return error(ErrorKind::Stale, "the object was replaced");
        }
        let extra = extra.cloned().unwrap_or(object.extra);
        Ok(objects.insert(key, object.data, extra).meta(key))
    }

    async fn upload(&self, key: &str, extra: &Extra) -> Result<Box<dyn Upload>, UfsError> {
        Ok(Box::new(MemoryUpload::begin(Self::clone(self), key, extra)))
    }

    async fn uploads(&self, prefix: &str, _: Option<String>) -> Result<RawUploads, UfsError> {
        let objects = self.objects.read();
        let pending = objects.uploads.iter();
        let below = pending.filter(|(_, pending)| pending.key.starts_with(prefix));
        let uploads = below.map(|(id, pending)| pending.described(id)).collect();
        Ok(RawUploads {
            uploads,
            next: None,
        })
    }

    async fn abort(&self, key: &str, id: &str) -> Result<(), UfsError> {
        let mut objects = self.objects.write();
        if objects
            .uploads
            .get(id)
            .is_some_and(|pending| pending.key == key)
        {
            objects.uploads.remove(id);
        }
        Ok(())
    }
}

/// The stores of this process by name. The only global of the package: `memory:` URIs mean
/// "of this process", so that a test and what it tests see one store.
static STORES: LazyLock<Mutex<HashMap<String, Arc<MemoryStore>>>> = LazyLock::new(Mutex::default);

/// Tells this process's versions from those of any other.
static PROCESS: LazyLock<String> = LazyLock::new(|| {
    let started = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    format!("{:x}-{started:x}", std::process::id())
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_one_join_to_the_whole_listing() {
        let store = MemoryStore::named("pages_of_one");
        for key in ["d/", "d/a", "d/b/1", "d/b/2", "d/b0", "d/c", "e"] {
            store.put(key, "x");
        }
        let (mut keys, mut token) = (Vec::new(), None);
        loop {
            let page = store.page_after("d/", token.as_deref(), 1);
            keys.extend(page.objects.into_iter().map(|object| object.key));
            keys.extend(page.prefixes);
            match page.next {
                Some(next) => token = Some(next),
                None => break,
            }
        }
        assert_eq!(keys, ["d/", "d/a", "d/b/", "d/b0", "d/c"]);
    }
}

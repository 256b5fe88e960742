//! Names and attributes: random changes by two clients against a plain model, outcomes that POSIX
//! names, and directory renames that are cut off at every request.

mod cut;

use bytes::Bytes;
use futures::TryStreamExt as _;
use millpond_proto::{ErrorKind, MetadataMode, Refusal};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::*;
use crate::{AttributeChange, Attributes, ClientError, FileKind, RenameMode};

const PATHS: [&str; 9] = [
    "/a", "/b", "/d", "/d/a", "/d/b", "/d/e", "/d/e/a", "/g", "/g/d",
];

/// What is asked of the namespace; paths by their numbers.
#[derive(Debug, Clone)]
enum Step {
    Write(usize, Vec<u8>),
    Truncate(usize, u16),
    Mkdir(usize),
    Rmdir(usize),
    Unlink(usize),
    Rename(usize, usize, bool),
    Chmod(usize),
    /// Behind our back, where that is a file or nothing in a directory that is there.
    Put(usize, Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let path = 0..PATHS.len();
    let data = || proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        4 => (path.clone(), data()).prop_map(|(path, data)| Step::Write(path, data)),
        1 => (path.clone(), 0..60_u16).prop_map(|(path, size)| Step::Truncate(path, size)),
        4 => path.clone().prop_map(Step::Mkdir),
        2 => path.clone().prop_map(Step::Rmdir),
        2 => path.clone().prop_map(Step::Unlink),
        5 => (path.clone(), path.clone(), any::<bool>())
            .prop_map(|(from, to, keep)| Step::Rename(from, to, keep)),
        1 => path.clone().prop_map(Step::Chmod),
        1 => (path, data()).prop_map(|(path, data)| Step::Put(path, data)),
    ]
}

/// The namespace as it is to be: the content of files, none for directories.
type Tree = BTreeMap<String, Option<Vec<u8>>>;

fn parent(path: &str) -> &str {
    millpond_proto::change::parent(path).unwrap()
}

fn is_dir(tree: &Tree, path: &str) -> bool {
    path == "/" || tree.get(path) == Some(&None)
}

fn is_empty(tree: &Tree, dir: &str) -> bool {
    !tree
        .keys()
        .any(|path| millpond_proto::change::is_below(path, dir))
}

/// Takes `step` in the model; whether it is to succeed.
fn take(tree: &mut Tree, step: &Step) -> bool {
    match step {
        Step::Write(path, data) | Step::Put(path, data) => {
            let path = PATHS[*path];
            let fits = is_dir(tree, parent(path)) && !is_dir(tree, path);
            if fits {
                tree.insert(path.to_owned(), Some(data.clone()));
            }
            fits
        }
        Step::Truncate(path, size) => match tree.get_mut(PATHS[*path]) {
            Some(Some(data)) => {
                data.resize(usize::from(*size), 0);
                true
            }
            _ => false,
        },
        Step::Mkdir(path) => {
            let path = PATHS[*path];
            let fits = is_dir(tree, parent(path)) && !tree.contains_key(path);
            if fits {
                tree.insert(path.to_owned(), None);
            }
            fits
        }
        Step::Rmdir(path) => {
            let path = PATHS[*path];
            let fits = is_dir(tree, path) && is_empty(tree, path);
            if fits {
                tree.remove(path);
            }
            fits
        }
        Step::Unlink(path) => {
            let path = PATHS[*path];
            let fits = matches!(tree.get(path), Some(Some(_)));
            if fits {
                tree.remove(path);
            }
            fits
        }
        Step::Rename(from, to, keep) => rename(tree, PATHS[*from], PATHS[*to], *keep),
        Step::Chmod(path) => tree.contains_key(PATHS[*path]),
    }
}

fn rename(tree: &mut Tree, from: &str, to: &str, keep: bool) -> bool {
    if !tree.contains_key(from)
        || !is_dir(tree, parent(to))
        || millpond_proto::change::is_below(to, from)
        || (keep && tree.contains_key(to))
    {
        return false;
    }
    if from == to {
        return true;
    }
    let fits = match tree.get(to) {
        None => true,
        Some(None) => is_dir(tree, from) && is_empty(tree, to),
        Some(Some(_)) => !is_dir(tree, from),
    };
    if fits {
        tree.remove(to);
        let moved: Vec<String> = tree
            .keys()
            .filter(|path| *path == from || millpond_proto::change::is_below(path, from))
            .cloned()
            .collect();
        for path in moved {
            let content = tree.remove(&path).unwrap();
            tree.insert(format!("{to}{}", &path[from.len()..]), content);
        }
    }
    fits
}

async fn write(fs: &FileSystem, path: &str, data: &[u8]) -> Result<(), ClientError> {
    let writer = fs.create(path, Attributes::default(), false).await?;
    writer.truncate(0).await?;
    writer.write(0, Bytes::copy_from_slice(data)).await?;
    writer.close().await
}

async fn make(fs: &FileSystem, put: &dyn Fn(&str, &[u8]), step: &Step) -> Result<(), ClientError> {
    match step {
        Step::Write(path, data) => write(fs, PATHS[*path], data).await,
        Step::Truncate(path, size) => fs.truncate(PATHS[*path], u64::from(*size)).await,
        Step::Mkdir(path) => {
            let made = fs.mkdir(PATHS[*path], &Attributes::default()).await;
            made.map(drop)
        }
        Step::Rmdir(path) => fs.rmdir(PATHS[*path]).await,
        Step::Unlink(path) => fs.unlink(PATHS[*path]).await,
        Step::Rename(from, to, keep) => {
            let mode = match keep {
                true => RenameMode::NoReplace,
                false => RenameMode::Replace,
            };
            fs.rename(PATHS[*from], PATHS[*to], mode).await
        }
        Step::Chmod(path) => {
            let change = AttributeChange {
                mode: Some(0o750),
                ..AttributeChange::default()
            };
            fs.set_attributes(PATHS[*path], &change).await.map(drop)
        }
        Step::Put(path, data) => {
            put(PATHS[*path], data);
            Ok(())
        }
    }
}

/// All of the namespace, as a client shows it.
async fn shown(fs: &FileSystem) -> Result<Tree, ClientError> {
    let mut tree = Tree::new();
    let mut dirs = vec!["/".to_owned()];
    while let Some(dir) = dirs.pop() {
        let pages: Vec<_> = fs.list(&dir).try_collect().await?;
        for entry in pages.into_iter().flatten() {
            let path = crate::namespace::join(&dir, &entry.name);
            let content = if entry.attr.kind == FileKind::Directory {
                dirs.push(path.clone());
                None
            } else {
                let file = fs.open(&path).await?;
                Some(file.read(0, 1000).await?.to_vec())
            };
            tree.insert(path, content);
        }
    }
    Ok(tree)
}

fn strict() -> ClientConfig {
    ClientConfig {
        metadata_mode: MetadataMode::Strict,
        ..small()
    }
}

/// Random changes by two clients of one store show in both as the model has them.
fn follows_the_model(cases: u32, store: impl Fn() -> (String, Box<dyn Fn(&str, &[u8])>)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let steps = proptest::collection::vec((any::<bool>(), step()), 1..40);
    let outcome = runner.run(&steps, |steps| {
        let (uri, put) = store();
        runtime.block_on(async {
            let clients = [
                standalone(&uri, strict()).await,
                standalone(&uri, strict()).await,
            ];
            let mut tree = Tree::new();
            for (number, (second, step)) in steps.iter().enumerate() {
                let at = || format!("step {number}, {step:?}");
                let before = tree.clone();
                let fits = take(&mut tree, step);
                if matches!(step, Step::Put(..)) && !fits {
                    continue;
                }
                let made = make(&clients[usize::from(*second)], &*put, step).await;
                prop_assert_eq!(made.is_ok(), fits, "{}: {:?}, {:?}", at(), made, before);
                for client in &clients {
                    let shown = shown(client).await;
                    let shown =
                        shown.map_err(|error| TestCaseError::fail(format!("{}: {error}", at())))?;
                    prop_assert_eq!(&shown, &tree, "{}, of {:?}", at(), before);
                }
            }
            for client in clients {
                client.shutdown().await;
            }
            Ok(())
        })
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn changes_in_an_object_store_follow_the_model() {
    follows_the_model(48, || {
        let (store, uri) = fresh_store();
        let put = move |path: &str, data: &[u8]| {
            store.put(&path[1..], data.to_vec());
        };
        (uri, Box::new(put))
    });
}

#[test]
fn changes_in_a_local_directory_follow_the_model() {
    let top = tempfile::tempdir().unwrap();
    let number = AtomicU32::new(0);
    follows_the_model(16, || {
        let number = number.fetch_add(1, Ordering::Relaxed);
        let dir = top.path().join(number.to_string());
        std::fs::create_dir(&dir).unwrap();
        let uri = format!("file://{}", dir.display());
        let put = move |path: &str, data: &[u8]| {
            std::fs::write(dir.join(&path[1..]), data).unwrap();
        };
        (uri, Box::new(put))
    });
}

/// What a change that is refused is refused as.
async fn refusals_of(uri: &str) {
    let fs = standalone(uri, small()).await;
    let none = Attributes::default();
    fs.mkdir("/d", &none).await.unwrap();
    fs.mkdir("/d/e", &none).await.unwrap();
    write(&fs, "/f", b"x").await.unwrap();
    let refusal = |result: Result<(), ClientError>| result.unwrap_err().refusal();
    let kind = |result: Result<(), ClientError>| result.unwrap_err().kind();
    let mkdir = async |path: &str| fs.mkdir(path, &none).await.map(drop);
    let replace = async |from: &str, to: &str| fs.rename(from, to, RenameMode::Replace).await;
    let long = format!("/{}", "x".repeat(256));

    assert_eq!(refusal(mkdir("/d").await), Some(Refusal::Exists));
    assert_eq!(refusal(mkdir("/f").await), Some(Refusal::Exists));
    assert_eq!(refusal(mkdir("/").await), Some(Refusal::Exists));
    assert_eq!(refusal(mkdir("/f/x").await), Some(Refusal::NotADirectory));
    assert_eq!(refusal(mkdir(&long).await), Some(Refusal::NameTooLong));
    assert_eq!(kind(mkdir("/none/x").await), ErrorKind::NotFound);
    assert_eq!(refusal(fs.rmdir("/d").await), Some(Refusal::NotEmpty));
    assert_eq!(refusal(fs.rmdir("/f").await), Some(Refusal::NotADirectory));
    assert_eq!(refusal(fs.rmdir("/").await), Some(Refusal::InUse));
    assert_eq!(kind(fs.rmdir("/none").await), ErrorKind::NotFound);
    assert_eq!(refusal(fs.unlink("/d").await), Some(Refusal::IsADirectory));
    assert_eq!(kind(fs.unlink("/none").await), ErrorKind::NotFound);
    assert_eq!(kind(replace("/none", "/x").await), ErrorKind::NotFound);
    assert_eq!(kind(replace("/f", "/none/x").await), ErrorKind::NotFound);
    assert_eq!(kind(replace("/d", "/d/e/x").await), ErrorKind::Invalid);
    assert_eq!(refusal(replace("/f", "/f/x").await), None);
    assert_eq!(
        refusal(replace("/f", "/d").await),
        Some(Refusal::IsADirectory)
    );
    assert_eq!(
        refusal(replace("/d", "/f").await),
        Some(Refusal::NotADirectory)
    );
    assert_eq!(refusal(replace("/", "/x").await), Some(Refusal::InUse));
    let kept = fs.rename("/f", "/d", RenameMode::NoReplace).await;
    assert_eq!(refusal(kept), Some(Refusal::Exists));
    assert_eq!(fs.open("/f").await.unwrap().read(0, 9).await.unwrap(), "x");
    fs.shutdown().await;

    let config = ClientConfig {
        read_only: true,
        ..small()
    };
    let fs = standalone(uri, config).await;
    for refused in [
        fs.mkdir("/n", &none).await.map(drop),
        fs.rmdir("/d").await,
        fs.unlink("/f").await,
        fs.rename("/f", "/n", RenameMode::Replace).await,
        fs.symlink("/n", "f", &none).await.map(drop),
        fs.hard_link("/f", "/n").await.map(drop),
        fs.set_attributes("/f", &AttributeChange::default())
            .await
            .map(drop),
        fs.create("/n", none.clone(), false).await.map(drop),
        fs.truncate("/f", 0).await,
    ] {
        assert_eq!(refused.unwrap_err().refusal(), Some(Refusal::ReadOnly));
    }
    fs.shutdown().await;
}

#[tokio::test]
async fn what_is_refused_is_told_apart_in_any_store() {
    let (_store, uri) = fresh_store();
    refusals_of(&uri).await;
    let dir = tempfile::tempdir().unwrap();
    refusals_of(&format!("file://{}", dir.path().display())).await;
}

#[tokio::test]
async fn a_directory_of_an_object_store_stays_when_it_is_emptied() {
    let (store, uri) = fresh_store();
    store.put("d/a", "1");
    store.put("e/b", "2");
    let fs = standalone(&uri, small()).await;
    fs.unlink("/d/a").await.unwrap();
    assert!(fs.stat("/d").await.unwrap().is_dir());
    fs.rename("/e/b", "/d/b", RenameMode::Replace)
        .await
        .unwrap();
    assert!(fs.stat("/e").await.unwrap().is_dir());
    fs.rmdir("/e").await.unwrap();
    let gone = fs.stat("/e").await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    let control = fs.mkdir("/a\nb", &Attributes::default()).await;
    assert_eq!(control.unwrap_err().kind(), ErrorKind::Invalid);
    fs.shutdown().await;
}

#[tokio::test]
async fn names_follow_a_file_that_is_being_written() {
    let (store, uri) = fresh_store();
    let fs = standalone(&uri, small()).await;
    let none = Attributes::default();
    let writer = fs.create("/new", none.clone(), true).await.unwrap();
    writer.write(0, Bytes::from_static(b"one")).await.unwrap();
    assert!(fs.mkdir("/new", &none).await.is_err());
    fs.rename("/new", "/final", RenameMode::Replace)
        .await
        .unwrap();
    writer.write(3, Bytes::from_static(b" two")).await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(store.get("final").unwrap(), "one two");
    assert_eq!(store.get("new"), None);

    let writer = fs.create("/gone", none, true).await.unwrap();
    writer.write(0, Bytes::from_static(b"x")).await.unwrap();
    fs.unlink("/gone").await.unwrap();
    writer.write(1, Bytes::from_static(b"y")).await.unwrap();
    assert_eq!(writer.read(0, 9).await.unwrap(), "xy");
    writer.close().await.unwrap();
    assert_eq!(store.get("gone"), None);
    fs.shutdown().await;
}

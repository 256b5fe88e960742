//! Every request of every change fails in turn, before or after it has done its work, for once
//! or for good: what is there afterwards is the old or the new, never a third thing.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use millpond_proto::{ErrorKind, FileVersion};
use millpond_s3_fixture::{ListRequest, S3Fixture, When};
use millpond_ufs::{
    AttributeChange, Attributes, Condition, RenameMode, Ufs, UfsContext, UfsError, open,
};

/// Keys with their bytes and their mode; markers are told by their keys.
type Tree = BTreeMap<String, (Vec<u8>, Option<String>)>;

/// Makes a change to the files in a directory.
type Make = for<'a> fn(&'a dyn Ufs, &'a str) -> BoxFuture<'a, Result<(), UfsError>>;

/// A change of the tree that [`fill`] makes.
struct Change {
    name: &'static str,
    make: Make,
    /// What is there when it failed half-way, beside the old and the new: a rename that has
    /// copied and not removed yet.
    between: fn(&mut Tree),
}

fn changes() -> Vec<Change> {
    fn change(name: &'static str, make: Make) -> Change {
        Change {
            name,
            make,
            between: |_| {},
        }
    }
    vec![
        change("put", |ufs, dir| {
            Box::pin(put(ufs, format!("{dir}/f"), Condition::Any))
        }),
        change("put anew", |ufs, dir| {
            Box::pin(put(ufs, format!("{dir}/new"), Condition::Absent))
        }),
        change("put over a version", |ufs, dir| {
            Box::pin(async move {
                let path = format!("{dir}/f");
                let version = ufs.stat(&path).await?.version.unwrap();
                put(ufs, path, Condition::Version(version)).await
            })
        }),
        change("upload", |ufs, dir| {
            Box::pin(upload(ufs, dir, "f", Condition::Any))
        }),
        change("upload anew", |ufs, dir| {
            Box::pin(upload(ufs, dir, "new", Condition::Absent))
        }),
        change("copy", |ufs, dir| {
            Box::pin(copy(ufs, dir, "d/g", Condition::Any))
        }),
        change("copy anew", |ufs, dir| {
            Box::pin(copy(ufs, dir, "new", Condition::Absent))
        }),
        Change {
            name: "rename",
            make: |ufs, dir| Box::pin(rename(ufs, dir, "d/g", RenameMode::Replace)),
            between: |tree| {
                tree.insert("d/g".into(), tree["f"].clone());
            },
        },
        Change {
            name: "rename anew",
            make: |ufs, dir| Box::pin(rename(ufs, dir, "new", RenameMode::NoReplace)),
            between: |tree| {
                tree.insert("new".into(), tree["f"].clone());
            },
        },
        change("set attributes", |ufs, dir| {
            Box::pin(async move {
                let change = AttributeChange {
                    mode: Some(0o600),
                    ..AttributeChange::default()
                };
                let path = format!("{dir}/f");
                ufs.set_attributes(&path, &change).await.map(drop)
            })
        }),
        Change {
            name: "remove the last of a directory",
            make: |ufs, dir| Box::pin(async move { ufs.remove(&format!("{dir}/d/g")).await }),
            between: |tree| {
                tree.insert("d/".into(), (Vec::new(), Some("16877".into())));
            },
        },
        change("make a directory", |ufs, dir| {
            Box::pin(async move {
                let path = format!("{dir}/e");
                ufs.create_dir(&path, &Attributes::default()).await
            })
        }),
        change("remove a directory", |ufs, dir| {
            Box::pin(async move { ufs.remove_dir(&format!("{dir}/empty")).await })
        }),
        change("link", |ufs, dir| {
            Box::pin(async move {
                let path = format!("{dir}/l");
                ufs.symlink(&path, "f", &Attributes::default()).await
            })
        }),
    ]
}

#[tokio::test]
async fn after_any_failure_there_is_the_old_or_the_new() {
    let all = changes().into_iter().map(|change| async move {
        let name = change.name;
        let met = fail_at_every_request(change).await;
        (name, met)
    });
    for (name, met) in futures::future::join_all(all).await {
        assert!(met > 0, "{name} sent nothing");
    }
}

/// How many requests the change takes.
async fn fail_at_every_request(change: Change) -> u64 {
    let s3 = S3Fixture::start().await;
    let (never, once) = (mount(&s3, "0").await, mount(&s3, "1").await);
    fill(&s3, "case");
    let old = tree_of(&s3, "case");
    s3.faults().fail_at(u64::MAX, 0, When::Before, 500);
    (change.make)(&*never, "case").await.unwrap();
    let requests = s3.faults().came();
    let new = tree_of(&s3, "case");
    assert_ne!(old, new, "{}", change.name);
    let mut between = old.clone();
    (change.between)(&mut between);
    for when in [When::Before, When::After] {
        for first in 0..requests {
            for (count, ufs) in [(1, &once), (u64::MAX, &never)] {
                let at = format!("{}: {when:?} {first}, {count} times", change.name);
                let dir = format!("{when:?}-{first}-{count}");
                fill(&s3, &dir);
                s3.faults().fail_at(first, count, when, 500);
                let made = (change.make)(&**ufs, &dir).await;
                s3.faults().fail_at(u64::MAX, 0, When::Before, 500);
                let found = tree_of(&s3, &dir);
                match made {
                    Ok(()) => assert_eq!(found, new, "{at}"),
                    Err(error) if count == 1 => panic!("{at}: it is not tried again: {error}"),
                    Err(error) => {
                        let told = error.kind();
                        assert_eq!(told, ErrorKind::Unavailable, "{at}: {error}");
                        assert!([&old, &new, &between].contains(&&found), "{at}: {found:?}");
                    }
                }
            }
        }
    }
    s3.shutdown().await;
    requests
}

async fn copy(ufs: &dyn Ufs, dir: &str, to: &str, condition: Condition) -> Result<(), UfsError> {
    let (from, to) = (format!("{dir}/f"), format!("{dir}/{to}"));
    ufs.copy(&from, &to, &condition).await.map(drop)
}

async fn rename(ufs: &dyn Ufs, dir: &str, to: &str, mode: RenameMode) -> Result<(), UfsError> {
    let (from, to) = (format!("{dir}/f"), format!("{dir}/{to}"));
    ufs.rename(&from, &to, mode).await
}

async fn put(ufs: &dyn Ufs, path: String, condition: Condition) -> Result<(), UfsError> {
    let data = Bytes::from_static(b"new bytes");
    let put = ufs
        .put(&path, data, &Attributes::default(), &condition)
        .await;
    put.map(drop)
}

/// Of one part that is sent and one that is copied. Whatever fails is given up.
async fn upload(
    ufs: &dyn Ufs,
    dir: &str,
    name: &str,
    condition: Condition,
) -> Result<(), UfsError> {
    let path = format!("{dir}/{name}");
    let upload = ufs.upload(&path, &Attributes::default()).await?;
    let big = format!("{dir}/big");
    let source = FileVersion::ETag(BIG.get().unwrap().as_str().into());
    let sent = async {
        upload.copy_part(0, 0, &big, &source, 0..PART).await?;
        upload.part(1, PART, Bytes::from_static(b"end")).await?;
        upload.complete(PART + 3, &condition).await
    };
    match sent.await {
        Ok(_) => Ok(()),
        Err(error) => {
            let _ = upload.abort().await;
            Err(error)
        }
    }
}

/// Makes a directory with some files.
fn fill(s3: &S3Fixture, dir: &str) {
    let mode = |mode: &str| [("mode".to_owned(), mode.to_owned())].into();
    for (name, text, of) in [
        ("f", "first", "33188"),
        ("d/g", "second", "33188"),
        ("empty/", "", "16877"),
    ] {
        s3.put_content("lake", &format!("{dir}/{name}"), text.into(), mode(of));
    }
    let big = format!("{dir}/big");
    let e_tag = s3.put_sparse("lake", &big, PART, vec![(0, "big".into())]);
    BIG.get_or_init(|| e_tag);
}

/// What is in the directory: of large objects only how large they are.
fn tree_of(s3: &S3Fixture, dir: &str) -> Tree {
    let prefix = format!("{dir}/");
    let request = ListRequest {
        prefix: prefix.clone(),
        max_keys: 1000,
        ..ListRequest::default()
    };
    let listed = s3.backend().list("lake", &request).unwrap();
    let objects = listed.objects.into_iter();
    let described = objects.map(|(key, object)| {
        let bytes = match object.content.len() {
            len if len > 100 => len.to_string().into_bytes(),
            _ => object.content.read(0, 100).to_vec(),
        };
        let mode = object.metadata.get("mode").cloned();
        (key[prefix.len()..].to_owned(), (bytes, mode))
    });
    described.collect()
}

async fn mount(s3: &S3Fixture, retries: &str) -> Arc<dyn Ufs> {
    let mut options = s3.options();
    options.insert("posix_attributes".into(), "full".into());
    options.insert("max_retries".into(), retries.into());
    open("s3://lake", &options, UfsContext::detached())
        .await
        .unwrap()
}

const PART: u64 = 5 << 20;

/// The version of every `big`.
static BIG: std::sync::OnceLock<String> = std::sync::OnceLock::new();

//! Answers questions about paths.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;

use millpond_net::NetError;
use millpond_net::block_server::Reply;
use millpond_proto::checksum::page_checksums;
use millpond_proto::wire::frame::{Request, Tier};
use millpond_proto::wire::query::{MAX_ANSWER_LEN, PathAt, PathQuery, encode};
use millpond_proto::{ErrorKind, Mount};

use super::{MOUNT_PATIENCE, NodeService, Refusal};
use crate::fill::error_chain;
use crate::metadata::Place;

/// Who watches is answered this long before their patience ends.
const MARGIN: Duration = Duration::from_secs(5);

/// Who watches is answered after this at the latest.
const LONGEST_WATCH: Duration = Duration::from_secs(25);

impl NodeService {
    pub(super) async fn paths(&self, request: Request, reply: Reply) -> Result<(), NetError> {
        let answer = match request.query {
            Some(query) => self.answer(query, reply.deadline()).await,
            None => {
                let message = "a question about a path must name it";
                Err(Refusal::new(ErrorKind::Invalid, message))
            }
        };
        match answer {
            Ok(bytes) if bytes.len() <= MAX_ANSWER_LEN as usize => {
                let data = Bytes::from(bytes);
                let checksums = page_checksums(&data);
                reply.send(Tier::None, data, &checksums).await
            }
            Ok(_) => {
                let message = "the answer is too long to be sent";
                reply.fail(ErrorKind::Unsupported, message).await
            }
            Err(Refusal { kind, message }) => {
                tracing::debug!(%kind, message, "refused");
                reply.fail(kind, message).await
            }
        }
    }

    async fn answer(&self, query: PathQuery, deadline: Instant) -> Result<Vec<u8>, Refusal> {
        match query {
            PathQuery::Stat { at, oldest } => {
                let place = self.place(&at).await?;
                let answer = self.metadata.stat(place, oldest).await;
                let answer =
                    answer.map_err(|error| Refusal::new(error.kind(), error_chain(&error)))?;
                encoded(&answer)
            }
            PathQuery::List {
                at,
                oldest,
                listing,
                page,
            } => {
                let place = self.place(&at).await?;
                let page = self.metadata.list(place, oldest, listing, page).await;
                page.map_err(|error| Refusal::new(error.kind(), error.to_string()))
            }
            PathQuery::Forget {
                change,
                origin,
                publish,
            } => {
                self.metadata.forget(&change, origin, publish);
                encoded(&())
            }
            PathQuery::Watch { seen, origin } => {
                let left = deadline.saturating_duration_since(Instant::now());
                let patience = left.saturating_sub(MARGIN).min(LONGEST_WATCH);
                encoded(&self.metadata.watch(seen, origin, patience).await)
            }
        }
    }

    /// Where `at` is, in the namespace and in its store.
    async fn place(&self, at: &PathAt) -> Result<Place, Refusal> {
        let Some(mount) = self.view.mount(at.mount, MOUNT_PATIENCE).await else {
            let message = format!("mount {} is not known here", at.mount);
            return Err(Refusal::new(ErrorKind::Unavailable, message));
        };
        let ufs = self.ufs.of(&mount).await.map_err(|error| Refusal {
            // The caller may have what this node lacks: let it ask the store itself.
            kind: ErrorKind::Unavailable,
            message: error_chain(&error),
        })?;
        Ok(Place {
            path: path_of(&mount, &at.below),
            below: at.below.clone(),
            ufs,
        })
    }
}

/// The path in the namespace of `below` under `mount`.
fn path_of(mount: &Mount, below: &str) -> String {
    match (mount.path.as_str(), below) {
        (root, "") => root.to_owned(),
        ("/", below) => format!("/{below}"),
        (root, below) => format!("{root}/{below}"),
    }
}

fn encoded<T: Serialize>(answer: &T) -> Result<Vec<u8>, Refusal> {
    encode(answer).map_err(|error| Refusal::new(ErrorKind::Internal, error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millpond_proto::{MountId, MountPath};

    use super::*;

    #[test]
    fn paths_of_the_namespace_are_put_together() {
        let mount = |path| Mount {
            id: MountId(1),
            path: MountPath::parse(path).unwrap(),
            ufs: "memory:///x".to_owned(),
            options: BTreeMap::new(),
        };
        assert_eq!(path_of(&mount("/"), ""), "/");
        assert_eq!(path_of(&mount("/"), "a/b"), "/a/b");
        assert_eq!(path_of(&mount("/m"), ""), "/m");
        assert_eq!(path_of(&mount("/m"), "a/b"), "/m/a/b");
    }
}

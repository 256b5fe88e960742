//! Who may ask for what.
//!
//! | caller | may |
//! |---|---|
//! | in the clear, from this host | everything: whoever is here can read the files, too |
//! | in the clear, from another host | look, without secrets; everything with `--open-join` |
//! | over TLS, as `node-N` | speak as `node-N`, follow the view, look |
//! | over TLS, as `client` | renew its certificate, follow the view, look |
//! | over TLS, with a token | become what the token says; everything with one for operators |
//! | another coordinator | pass on what it has admitted |

use millpond_net::control::JoinToken;
use millpond_net::tls::PeerRole;
use millpond_proto::{ErrorKind, NodeId};
use ring::digest::{SHA256, digest};
use tonic::Request;

use super::Service;
use super::failure::Failure;
use crate::engine::{Op, TokenRole};
use crate::group::Caller;

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// To enter as a node: one that comes back under its id, or any that has a token.
    Enter(NodeId),
    /// To speak as a node.
    Speak(NodeId),
    /// To be certified as a client.
    Certify,
    /// To follow the view, secrets of mounts included.
    Follow,
    /// To change the cluster.
    Change,
}

/// A call that may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grant {
    /// As it is.
    Whole,
    /// Once the token that came with it has been used for this.
    WithToken(TokenRole),
}

impl Service {
    /// Whether who sent `request` has `right`.
    ///
    /// # Errors
    /// `Denied`, with what to do about it.
    pub(super) fn allow<T>(&self, request: &Request<T>, right: Right) -> Result<Grant, Failure> {
        let Some(caller) = request.extensions().get::<Caller>() else {
            return Err(Failure::internal("a call without a connection"));
        };
        let token = bearer(request);
        // Whoever passes a call on has looked at everything but the token.
        if caller.is_coordinator() && token.is_none() {
            return Ok(Grant::Whole);
        }
        if !caller.is_private {
            let is_local = caller.addr.ip().to_canonical().is_loopback();
            return match is_local || self.shared.open_join {
                true => Ok(Grant::Whole),
                false => Err(denied(format!(
                    "this coordinator serves processes on other machines over TLS only, and {} \
                     has neither a certificate nor a token: give it one with --token-file (millpond \
                     token create makes them), or start the coordinator with --open-join to serve \
                     and certify whoever reaches its port",
                    caller.addr.ip()
                ))),
            };
        }
        match (caller.role, right) {
            (Some(PeerRole::Node(own)), Right::Enter(node) | Right::Speak(node)) if own == node => {
                return Ok(Grant::Whole);
            }
            (Some(PeerRole::Node(_)), Right::Follow)
            | (Some(PeerRole::Client), Right::Follow | Right::Certify) => return Ok(Grant::Whole),
            _ => {}
        }
        let shown = token.and_then(JoinToken::from_bearer);
        match (shown, right) {
            (Some((id, secret)), _) if self.is_operator(id, secret) => Ok(Grant::Whole),
            (Some(_), Right::Enter(_)) => Ok(Grant::WithToken(TokenRole::Node)),
            (Some(_), Right::Certify) => Ok(Grant::WithToken(TokenRole::Client)),
            _ => Err(denied(format!(
                "{} may not {}: {}",
                caller
                    .role
                    .map_or_else(|| "the caller".to_owned(), |role| role.to_string()),
                right.name(),
                right.remedy()
            ))),
        }
    }

    /// Uses the token that came with `request` for `by`, if the grant asks for one.
    ///
    /// # Errors
    /// `Denied` if the token is not good for that; why there is no answer.
    pub(super) async fn redeem<T: Sync>(
        &self,
        grant: Grant,
        request: &Request<T>,
        by: &str,
    ) -> Result<(), Failure> {
        let Grant::WithToken(role) = grant else {
            return Ok(());
        };
        let shown = bearer(request).and_then(JoinToken::from_bearer);
        let Some((id, secret)) = shown else {
            return Err(Failure::internal(
                "a token was to be used, and there is none",
            ));
        };
        let show = Op::UseToken {
            id: id.to_owned(),
            secret_sha256: sha256(secret),
            role,
            by: by.to_owned(),
            now_ms: now_ms(),
        };
        self.shared.propose(show).await?;
        tracing::info!(token = id, %role, "token used");
        Ok(())
    }

    fn is_operator(&self, id: &str, secret: &str) -> bool {
        let published = self.shared.consensus.published();
        let tokens = std::sync::Arc::clone(&published.borrow().tokens);
        let token = tokens.get(id);
        token.is_some_and(|token| token.admits(&sha256(secret), TokenRole::Operator, now_ms()))
    }
}

impl Right {
    const fn name(self) -> &'static str {
        match self {
            Self::Enter(_) => "join as this node",
            Self::Speak(_) => "speak as this node",
            Self::Certify => "be certified",
            Self::Follow => "follow the view",
            Self::Change => "change the cluster",
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::Change => {
                "that takes a token for operators (--token-file), or a command on the \
                 coordinator's own host"
            }
            _ => "give it a token with --token-file; millpond token create makes them",
        }
    }
}

/// What a request shows as a token.
pub(super) fn bearer<T>(request: &Request<T>) -> Option<&str> {
    request.metadata().get("authorization")?.to_str().ok()
}

fn denied(message: String) -> Failure {
    Failure::new(ErrorKind::Denied, message)
}

/// The hash of a secret of 128 random bits: nothing is gained by a slow one.
pub(super) fn sha256(text: &str) -> String {
    hex::encode(digest(&SHA256, text.as_bytes()))
}

/// Unix time in milliseconds.
pub(super) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

//! Tokens: made, listed, revoked.

use std::time::Duration;

use millpond_net::control::JoinToken;
use millpond_net::tls;
use millpond_proto::wire::pb;

use super::Service;
use super::failure::Failure;
use super::rights::{now_ms, sha256};
use crate::engine::tokens::Token;
use crate::engine::{NewToken, Op, TokenRole};

/// How long a token may be good.
const TTL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(366 * 24 * 3600);

impl Service {
    pub(super) async fn make_token(
        &self,
        request: pb::CreateTokenRequest,
    ) -> Result<pb::CreateTokenResponse, Failure> {
        let role: TokenRole = request
            .role
            .parse()
            .map_err(|why: String| Failure::invalid(why))?;
        let ttl = Duration::from_millis(request.ttl_ms);
        if !TTL.contains(&ttl) {
            let message = format!("a token is good for {:?} to {:?}", TTL.start(), TTL.end());
            return Err(Failure::invalid(message));
        }
        let token = JoinToken {
            id: hex::encode(rand::random::<[u8; 4]>()),
            secret: hex::encode(rand::random::<[u8; 16]>()),
            fingerprint: tls::fingerprint(self.authority()?.cert_pem())?,
        };
        let now_ms = now_ms();
        let new = NewToken {
            id: token.id.clone(),
            secret_sha256: sha256(&token.secret),
            role,
            expires_ms: now_ms.saturating_add(request.ttl_ms),
            uses: (request.uses > 0).then_some(request.uses),
            now_ms,
        };
        let info = pb::Token {
            id: new.id.clone(),
            role: role.to_string(),
            expires_ms: new.expires_ms,
            uses_left: new.uses,
        };
        self.shared.propose(Op::CreateToken(new)).await?;
        tracing::info!(token = token.id, %role, ?ttl, uses = request.uses, "token made");
        Ok(pb::CreateTokenResponse {
            token: token.text(),
            info: Some(info),
        })
    }

    pub(super) fn good_tokens(&self) -> pb::ListTokensResponse {
        let published = self.shared.consensus.published();
        let tokens = std::sync::Arc::clone(&published.borrow().tokens);
        let now_ms = now_ms();
        let good = tokens
            .iter()
            .filter(|(_, token)| token.expires_ms > now_ms && token.uses_left() != Some(0));
        pb::ListTokensResponse {
            tokens: good.map(|(id, token)| info(id, token)).collect(),
        }
    }

    pub(super) async fn end_token(&self, id: String) -> Result<pb::RevokeTokenResponse, Failure> {
        self.shared
            .propose(Op::RevokeToken { id: id.clone() })
            .await?;
        tracing::info!(token = id, "token revoked");
        Ok(pb::RevokeTokenResponse {})
    }
}

fn info(id: &str, token: &Token) -> pb::Token {
    pb::Token {
        id: id.to_owned(),
        role: token.role.to_string(),
        expires_ms: token.expires_ms,
        uses_left: token.uses_left(),
    }
}

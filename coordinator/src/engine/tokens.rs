//! The rules of tokens: what lets a process in that has no certificate yet.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::command::{NewToken, TokenRole};
use super::outcome::{Effect, Outcome, Refused};
use super::state::State;

/// The most tokens that are good at once.
pub const MAX_TOKENS: usize = 1000;

/// Tokens by name.
pub(super) type Tokens = BTreeMap<String, Token>;

/// A token as the state keeps it: without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The SHA-256 of its secret, hexadecimal.
    pub secret_sha256: String,
    /// What it makes of a process.
    pub role: TokenRole,
    /// Until when it is good, Unix milliseconds.
    pub expires_ms: u64,
    /// How many processes may use it; any number if none.
    #[serde(default)]
    pub uses: Option<u32>,
    /// Who has used it, where uses are counted.
    #[serde(default)]
    pub used_by: BTreeSet<String>,
}

impl Token {
    /// How many more processes may use it; any number if none.
    pub fn uses_left(&self) -> Option<u32> {
        let used = u32::try_from(self.used_by.len()).unwrap_or(u32::MAX);
        self.uses.map(|uses| uses.saturating_sub(used))
    }

    /// Whether it lets in at `now_ms` whoever shows a secret with this hash as `role`.
    pub fn admits(&self, secret_sha256: &str, role: TokenRole, now_ms: u64) -> bool {
        self.secret_sha256 == secret_sha256 && self.role == role && now_ms < self.expires_ms
    }
}

impl State {
    pub(super) fn create_token(
        &mut self,
        new: &NewToken,
        effects: &mut Vec<Effect>,
    ) -> Result<Outcome, Refused> {
        let ended: Vec<_> = self
            .tokens
            .iter()
            .filter(|(_, token)| token.expires_ms <= new.now_ms)
            .map(|(id, _)| id.clone())
            .collect();
        if self.tokens.len() - ended.len() >= MAX_TOKENS {
            return Err(Refused::TooManyTokens);
        }
        for id in ended {
            self.tokens.remove(&id);
        }
        let token = Token {
            secret_sha256: new.secret_sha256.clone(),
            role: new.role,
            expires_ms: new.expires_ms,
            uses: new.uses,
            used_by: BTreeSet::new(),
        };
        self.tokens.insert(new.id.clone(), token);
        effects.push(Effect::Tokens);
        Ok(Outcome::Done)
    }

    pub(super) fn use_token(
        &mut self,
        id: &str,
        secret_sha256: &str,
        role: TokenRole,
        by: &str,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<Outcome, Refused> {
        let token = self.tokens.get_mut(id).ok_or(Refused::BadToken)?;
        if !token.admits(secret_sha256, role, now_ms) {
            return Err(Refused::BadToken);
        }
        if token.uses.is_some() && !token.used_by.contains(by) {
            if token.uses_left() == Some(0) {
                return Err(Refused::BadToken);
            }
            token.used_by.insert(by.to_owned());
            effects.push(Effect::Tokens);
        }
        Ok(Outcome::Done)
    }

    pub(super) fn revoke_token(
        &mut self,
        id: &str,
        effects: &mut Vec<Effect>,
    ) -> Result<Outcome, Refused> {
        if self.tokens.remove(id).is_none() {
            return Err(Refused::NoSuchToken { id: id.to_owned() });
        }
        effects.push(Effect::Tokens);
        Ok(Outcome::Done)
    }

    /// The tokens by name, those that have ended among them.
    pub fn tokens(&self) -> &BTreeMap<String, Token> {
        &self.tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Command, Op};

    fn create(id: &str, uses: Option<u32>, now_ms: u64) -> Op {
        Op::CreateToken(NewToken {
            id: id.to_owned(),
            secret_sha256: "right".to_owned(),
            role: TokenRole::Node,
            expires_ms: now_ms + 1000,
            uses,
            now_ms,
        })
    }

    fn show(id: &str, secret: &str, role: TokenRole, by: &str, now_ms: u64) -> Op {
        Op::UseToken {
            id: id.to_owned(),
            secret_sha256: secret.to_owned(),
            role,
            by: by.to_owned(),
            now_ms,
        }
    }

    fn run(state: &mut State, op: Op) -> Result<Outcome, Refused> {
        state.apply(&Command::new(op)).result
    }

    #[test]
    fn a_token_lets_in_so_many_processes_for_so_long_and_each_again() {
        let mut state = State::default();
        run(&mut state, create("a", Some(2), 0)).unwrap();
        let ok = |state: &mut State, by, now| {
            run(state, show("a", "right", TokenRole::Node, by, now)).is_ok()
        };
        assert!(ok(&mut state, "x", 1) && ok(&mut state, "x", 2) && ok(&mut state, "y", 3));
        assert!(!ok(&mut state, "z", 4), "used up");
        assert!(ok(&mut state, "y", 999), "has been let in");
        assert!(!ok(&mut state, "y", 1000), "has ended");
    }

    #[test]
    fn a_wrong_secret_role_or_name_uses_nothing_up() {
        let mut state = State::default();
        run(&mut state, create("a", Some(1), 0)).unwrap();
        for op in [
            show("a", "wrong", TokenRole::Node, "x", 1),
            show("a", "right", TokenRole::Operator, "x", 1),
            show("b", "right", TokenRole::Node, "x", 1),
        ] {
            assert_eq!(run(&mut state, op), Err(Refused::BadToken));
        }
        run(&mut state, show("a", "right", TokenRole::Node, "x", 1)).unwrap();
    }

    #[test]
    fn tokens_are_revoked_and_those_that_ended_are_forgotten() {
        let mut state = State::default();
        run(&mut state, create("a", None, 0)).unwrap();
        run(&mut state, create("b", None, 500)).unwrap();
        run(&mut state, create("c", None, 1200)).unwrap();
        let names: Vec<_> = state.tokens().keys().cloned().collect();
        assert_eq!(names, ["b", "c"]);
        run(&mut state, Op::RevokeToken { id: "b".into() }).unwrap();
        let shown = run(&mut state, show("b", "right", TokenRole::Node, "x", 600));
        assert_eq!(shown, Err(Refused::BadToken));
        let again = run(&mut state, Op::RevokeToken { id: "b".into() });
        assert!(matches!(again, Err(Refused::NoSuchToken { .. })));
    }
}

//! What a failed call to an object store means, and what its user can do.

use millpond_proto::{ErrorKind, Refusal};
use object_store::client::HttpErrorKind;

use crate::error::{Op, UfsError, chain};
use crate::object::tap::{CallLog, CallState, Ending};
use crate::redact::Redactor;

/// What is needed to explain the failures of one store.
#[derive(Debug)]
pub(crate) struct Failures {
    /// Where the store is, for messages.
    pub(crate) endpoint: String,
    /// The bucket or container.
    pub(crate) bucket: String,
    /// Where the credentials came from, for messages: "the options".
    pub(crate) credentials: String,
    /// The options in which this scheme's keys are given, for messages.
    pub(crate) key_options: &'static str,
    pub(crate) redactor: Redactor,
}

impl Failures {
    /// The error for a call that met what `log` says and ended in `error`.
    pub(crate) fn explain(
        &self,
        op: Op,
        uri: String,
        log: &CallLog,
        error: &object_store::Error,
    ) -> UfsError {
        let texts = chain(error, |text| self.redactor.scrub(text));
        self.explain_answer(op, uri, log, texts)
    }

    /// The same for a call that ended because of `texts`, outermost first, free of secrets.
    pub(crate) fn explain_answer(
        &self,
        op: Op,
        uri: String,
        log: &CallLog,
        texts: Vec<String>,
    ) -> UfsError {
        let state = log.state();
        if let Some(refusal) = refusal(op, &state) {
            let cause = self.answer(&state);
            return UfsError::refused(refusal, op, uri, cause).with_source(texts);
        }
        let innermost = texts.last().map_or("", String::as_str);
        let (kind, cause, hint) = self.meaning(op, &state, innermost);
        let mut failure = UfsError::new(kind, op, uri, cause).with_source(texts);
        if kind.try_next_source() {
            failure = failure.with_tried(log.elapsed());
        }
        match hint {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    }

    fn meaning(
        &self,
        op: Op,
        state: &CallState,
        innermost: &str,
    ) -> (ErrorKind, String, Option<String>) {
        let Self {
            endpoint, bucket, ..
        } = self;
        match &state.last {
            None => (
                ErrorKind::Denied,
                "no credentials could be had".into(),
                Some(format!(
                    "give {}, or set the option credentials (tried {})",
                    self.key_options, self.credentials
                )),
            ),
            Some(Ending::Transport(HttpErrorKind::Connect)) => (
                ErrorKind::Unavailable,
                format!("cannot connect to {endpoint}"),
                Some("check the option endpoint and that the store is up".into()),
            ),
            Some(Ending::Transport(HttpErrorKind::Timeout)) => (
                ErrorKind::Timeout,
                format!("{endpoint} did not answer in time"),
                Some("check that the store is up, or raise the option timeout".into()),
            ),
            Some(Ending::Transport(_)) => (
                ErrorKind::Unavailable,
                format!("the connection to {endpoint} broke"),
                None,
            ),
            Some(Ending::Status(status, code)) => {
                let code = code.as_deref().unwrap_or_default();
                let answer = self.answer(state);
                let no_bucket = matches!(code, "NoSuchBucket" | "ContainerNotFound");
                match status {
                    404 if no_bucket || op == Op::List => (
                        ErrorKind::NotFound,
                        format!("there is no bucket {bucket} at {endpoint}"),
                        Some("check the bucket's name and the options endpoint and region".into()),
                    ),
                    404 | 410 => (ErrorKind::NotFound, "there is no such object".into(), None),
                    412 => (ErrorKind::Stale, "the object was replaced".into(), None),
                    416 => (
                        ErrorKind::Invalid,
                        "the bytes asked for are beyond the object's end".into(),
                        None,
                    ),
                    401 | 403 => (ErrorKind::Denied, answer, Some(self.denied_hint(code))),
                    301 | 302 | 307 | 308 => (
                        ErrorKind::Invalid,
                        format!("{answer}: the bucket is somewhere else"),
                        Some("check the options region and endpoint".into()),
                    ),
                    400 if matches!(
                        code,
                        "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException"
                    ) =>
                    {
                        (
                            ErrorKind::Invalid,
                            answer,
                            Some("check the option region".into()),
                        )
                    }
                    400 if matches!(code, "ExpiredToken" | "InvalidToken") => {
                        (ErrorKind::Denied, answer, Some(self.denied_hint(code)))
                    }
                    429 | 503 if matches!(code, "SlowDown" | "ServerBusy") || *status == 429 => (
                        ErrorKind::Busy,
                        format!("{answer}: it asks for fewer requests"),
                        Some("lower the option concurrency".into()),
                    ),
                    409 => (
                        ErrorKind::Busy,
                        format!("{answer}: something else is being done to it"),
                        None,
                    ),
                    501 if op.changes() => (ErrorKind::Unsupported, answer, None),
                    408 | 504 => (ErrorKind::Timeout, answer, None),
                    500.. => (ErrorKind::Unavailable, answer, None),
                    400..500 => (ErrorKind::Invalid, answer, None),
                    _ => (
                        ErrorKind::Unavailable,
                        format!("the answer of {endpoint} is broken: {innermost}"),
                        None,
                    ),
                }
            }
        }
    }

    fn denied_hint(&self, code: &str) -> String {
        let Self {
            key_options,
            credentials,
            bucket,
            ..
        } = self;
        match code {
            "InvalidAccessKeyId" => {
                format!("check access_key_id, the store does not know it (from {credentials})")
            }
            "SignatureDoesNotMatch" => format!(
                "check secret_access_key, it does not belong to access_key_id (from {credentials})"
            ),
            "ExpiredToken" | "InvalidToken" => {
                format!("the session token has expired; get new keys (from {credentials})")
            }
            "RequestTimeTooSkewed" => "set the clock of this machine".into(),
            _ => format!(
                "check {key_options} (from {credentials}), and that they may read, list and, \
                 where the mount is written to, write {bucket}"
            ),
        }
    }

    fn answer(&self, state: &CallState) -> String {
        let endpoint = &self.endpoint;
        match &state.last {
            Some(Ending::Status(status, Some(code))) if !code.is_empty() => {
                format!("{endpoint} answered with status {status} ({code})")
            }
            Some(Ending::Status(status, _)) => format!("{endpoint} answered with status {status}"),
            _ => format!("{endpoint} did not answer"),
        }
    }
}

/// Why a store that answered like this refuses a change, where it says so more closely than by
/// denying it.
fn refusal(op: Op, state: &CallState) -> Option<Refusal> {
    let Some(Ending::Status(status, code)) = &state.last else {
        return None;
    };
    if !op.changes() {
        return None;
    }
    match (status, code.as_deref().unwrap_or_default()) {
        (_, "EntityTooLarge" | "MetadataTooLarge" | "RequestBodyTooLarge") | (413, _) => {
            Some(Refusal::TooLarge)
        }
        (_, "KeyTooLongError" | "InvalidUri") | (414, _) => Some(Refusal::NameTooLong),
        (
            _,
            "QuotaExceeded"
            | "QuotaExceededException"
            | "BucketQuotaExceeded"
            | "XMinioAdminBucketQuotaExceeded",
        ) => Some(Refusal::Quota),
        (_, "XMinioStorageFull" | "InsufficientCapacity") | (507, _) => Some(Refusal::NoSpace),
        (405, _) => Some(Refusal::ReadOnly),
        _ => None,
    }
}

/// Whether the store answered that the object, and not its bucket, is missing.
pub(crate) fn is_missing_object(state: &CallState) -> bool {
    match &state.last {
        Some(Ending::Status(404, code)) => {
            !matches!(code.as_deref(), Some("NoSuchBucket" | "ContainerNotFound"))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(op: Op, last: Option<Ending>) -> (ErrorKind, String) {
        let failures = Failures {
            endpoint: "http://h:9000".into(),
            bucket: "b".into(),
            credentials: "the options".into(),
            key_options: "access_key_id and secret_access_key",
            redactor: Redactor::new(["hunter2".into()]),
        };
        let state = CallState {
            attempts: 1,
            last,
            ..CallState::default()
        };
        let innermost = failures.redactor.scrub("password hunter2 in here");
        let (kind, cause, hint) = failures.meaning(op, &state, &innermost);
        (kind, format!("{cause}; {}", hint.unwrap_or_default()))
    }

    fn status(op: Op, status: u16, code: &str) -> (ErrorKind, String) {
        let code = (!code.is_empty()).then(|| code.to_owned());
        explain(op, Some(Ending::Status(status, code)))
    }

    #[test]
    fn every_answer_has_its_kind() {
        for (op, code, text, kind) in [
            (Op::Read, 404, "", ErrorKind::NotFound),
            (Op::Read, 404, "NoSuchKey", ErrorKind::NotFound),
            (Op::List, 404, "NoSuchBucket", ErrorKind::NotFound),
            (Op::Read, 412, "PreconditionFailed", ErrorKind::Stale),
            (Op::Read, 416, "InvalidRange", ErrorKind::Invalid),
            (Op::Stat, 403, "", ErrorKind::Denied),
            (Op::Stat, 401, "", ErrorKind::Denied),
            (Op::Stat, 400, "ExpiredToken", ErrorKind::Denied),
            (Op::Stat, 400, "", ErrorKind::Invalid),
            (Op::Stat, 301, "", ErrorKind::Invalid),
            (Op::Stat, 429, "", ErrorKind::Busy),
            (Op::Stat, 503, "SlowDown", ErrorKind::Busy),
            (Op::Stat, 503, "", ErrorKind::Unavailable),
            (Op::Stat, 500, "", ErrorKind::Unavailable),
            (Op::Stat, 504, "", ErrorKind::Timeout),
            (Op::Stat, 200, "", ErrorKind::Unavailable),
        ] {
            assert_eq!(status(op, code, text).0, kind, "{code} {text}");
        }
    }

    #[test]
    fn refusals_of_changes_are_told_apart() {
        for (status, code, expected) in [
            (400, "EntityTooLarge", Some(Refusal::TooLarge)),
            (400, "MetadataTooLarge", Some(Refusal::TooLarge)),
            (413, "", Some(Refusal::TooLarge)),
            (400, "KeyTooLongError", Some(Refusal::NameTooLong)),
            (403, "QuotaExceeded", Some(Refusal::Quota)),
            (507, "", Some(Refusal::NoSpace)),
            (405, "MethodNotAllowed", Some(Refusal::ReadOnly)),
            (403, "AccessDenied", None),
            (409, "OperationAborted", None),
        ] {
            let state = CallState {
                attempts: 1,
                last: Some(Ending::Status(status, Some(code.to_owned()))),
                ..CallState::default()
            };
            assert_eq!(refusal(Op::Put, &state), expected, "{status} {code}");
            assert_eq!(refusal(Op::Read, &state), None);
        }
        assert_eq!(status(Op::Put, 409, "OperationAborted").0, ErrorKind::Busy);
        assert_eq!(status(Op::Put, 403, "AccessDenied").0, ErrorKind::Denied);
        assert_eq!(
            status(Op::Put, 501, "NotImplemented").0,
            ErrorKind::Unsupported
        );
    }

    #[test]
    fn hints_name_the_option_to_look_at() {
        assert!(
            status(Op::List, 403, "SignatureDoesNotMatch")
                .1
                .contains("secret_access_key")
        );
        assert!(
            status(Op::List, 403, "InvalidAccessKeyId")
                .1
                .contains("check access_key_id")
        );
        assert!(
            status(Op::List, 404, "")
                .1
                .contains("there is no bucket b at http://h:9000")
        );
        let connect = explain(Op::Stat, Some(Ending::Transport(HttpErrorKind::Connect)));
        assert_eq!(connect.0, ErrorKind::Unavailable);
        assert!(connect.1.contains("cannot connect to http://h:9000"));
        assert_eq!(explain(Op::Stat, None).0, ErrorKind::Denied);
    }

    #[test]
    fn causes_are_scrubbed() {
        assert!(!status(Op::Stat, 200, "").1.contains("hunter2"));
    }
}

//! Google Cloud Storage: endpoint and credentials.

use std::sync::Arc;

use millpond_proto::ErrorKind;
use object_store::StaticCredentialProvider;
use object_store::gcp::{GcpCredential, GoogleCloudStorage, GoogleCloudStorageBuilder};

use crate::context::UfsContext;
use crate::environment::Environment;
use crate::error::{Op, UfsError, chain};
use crate::layer::Valve;
use crate::object::failure::Failures;
use crate::object::network::{self, Credentials, Endpoint};
use crate::object::store::StoreBackend;
use crate::object::tap::TapConnector;
use crate::options::{OptionSet, Patience};
use crate::redact::Redactor;
use crate::uri::UfsUri;

/// The bucket that `uri` names.
pub(crate) fn open(
    uri: &UfsUri,
    options: &OptionSet<'_>,
    patience: Patience,
    context: &UfsContext,
    valve: &Arc<Valve>,
) -> Result<StoreBackend<GoogleCloudStorage>, UfsError> {
    let environment = network::environment(options, &context.environment)?;
    let bucket = uri.authority();
    let endpoint = options
        .text("endpoint")
        .map(|text| Endpoint::parse(options, text))
        .transpose()?;
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_client_options(network::client(options, patience, endpoint.as_ref())?)
        .with_retry(network::retry(patience))
        .with_http_connector(TapConnector::new(Arc::clone(valve)));
    if let Some(endpoint) = &endpoint {
        builder = builder.with_base_url(endpoint.text());
    }
    let key = key(options, &environment)?;
    let mut secrets = options.secrets();
    let from = match key {
        Key::File(path, from) => {
            builder = builder.with_application_credentials(path);
            from
        }
        Key::Text(text, from) => {
            secrets.push(text.clone());
            builder = builder.with_service_account_key(text);
            from
        }
        Key::Instance => "gcloud's default credentials, then instance metadata",
        Key::Anonymous => {
            let nobody = GcpCredential {
                bearer: String::new(),
            };
            builder = builder
                .with_skip_signature(true)
                .with_credentials(Arc::new(StaticCredentialProvider::new(nobody)));
            "nowhere, credentials=anonymous"
        }
    };
    let redactor = Redactor::new(secrets);
    let store = builder.build().map_err(|error| {
        let texts = chain(&error, |text| redactor.scrub(text));
        options.wrong("service_account_file or endpoint", texts.join(": "))
    })?;
    let identity = match &endpoint {
        Some(endpoint) => format!("gs+{}/{bucket}", endpoint.text()),
        None => format!("gs://{bucket}"),
    };
    let failures = Failures {
        endpoint: endpoint.map_or_else(
            || "Google Cloud Storage".into(),
            |endpoint| endpoint.text().to_owned(),
        ),
        bucket: bucket.to_owned(),
        credentials: from.to_owned(),
        key_options: "service_account_file or service_account_key",
        redactor,
    };
    Ok(StoreBackend::new(store, identity, failures))
}

enum Key {
    File(String, &'static str),
    Text(String, &'static str),
    Instance,
    Anonymous,
}

fn key(options: &OptionSet<'_>, environment: &Environment) -> Result<Key, UfsError> {
    let of_options = || match (
        options.text("service_account_file"),
        options.text("service_account_key"),
    ) {
        (Some(path), _) => Some(Key::File(path.to_owned(), "the options")),
        (None, Some(text)) => Some(Key::Text(text.to_owned(), "the options")),
        (None, None) => None,
    };
    let of_environment = || {
        let file = ["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_APPLICATION_CREDENTIALS"]
            .into_iter()
            .find_map(|name| environment.get(name));
        match (file, environment.get("GOOGLE_SERVICE_ACCOUNT_KEY")) {
            (Some(path), _) => Some(Key::File(path.to_owned(), "the environment")),
            (None, Some(text)) => Some(Key::Text(text.to_owned(), "the environment")),
            (None, None) => None,
        }
    };
    let none = |what: &str| {
        UfsError::new(
            ErrorKind::Denied,
            Op::Open,
            options.uri(),
            format!("no credentials in {what}"),
        )
    };
    match Credentials::of(options)? {
        Credentials::Auto => Ok(of_options()
            .or_else(of_environment)
            .unwrap_or(Key::Instance)),
        Credentials::Static => of_options().ok_or_else(|| none("the options")),
        Credentials::Env => of_environment().ok_or_else(|| none("the environment")),
        Credentials::Instance => Ok(Key::Instance),
        Credentials::Anonymous => Ok(Key::Anonymous),
        Credentials::Profile => Err(options.wrong("credentials", "gs has no profiles")),
    }
}

//! S3 and what speaks its protocol: endpoint and credentials.

mod client;
mod keys;
mod profile;
mod writer;

use std::sync::Arc;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::HttpConnector;

use crate::context::UfsContext;
use crate::error::{UfsError, chain};
use crate::layer::Valve;
use crate::object::failure::Failures;
use crate::object::network::{self, Endpoint};
use crate::object::s3::client::{Place, S3Client};
use crate::object::s3::keys::{KeySource, Keys};
use crate::object::s3::writer::S3Writer;
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
) -> Result<StoreBackend<AmazonS3>, UfsError> {
    let environment = network::environment(options, &context.environment)?;
    let keys = Keys::find(options, &environment)?;
    let bucket = uri.authority();
    let region = options
        .text("region")
        .or_else(|| environment.get("AWS_REGION"))
        .or_else(|| environment.get("AWS_DEFAULT_REGION"))
        .or(keys.region.as_deref())
        .unwrap_or("us-east-1");
    let endpoint = options
        .text("endpoint")
        .or_else(|| environment.get("AWS_ENDPOINT_URL_S3"))
        .or_else(|| environment.get("AWS_ENDPOINT_URL"))
        .or(keys.endpoint.as_deref())
        .map(|text| Endpoint::parse(options, text))
        .transpose()?;
    let path_style = options.flag(
        "path_style",
        !options.flag("virtual_hosted_style_request", endpoint.is_none())?,
    )?;

    let checksums = options.parsed("checksum", true, "crc32c or none", |text| match text {
        "crc32c" => Some(true),
        "none" => Some(false),
        _ => None,
    })?;

    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_virtual_hosted_style_request(!path_style)
        .with_client_options(network::client(options, patience, endpoint.as_ref())?)
        .with_retry(network::retry(patience))
        .with_http_connector(TapConnector::new(Arc::clone(valve)));
    let mut url = match path_style {
        true => format!("https://s3.{region}.amazonaws.com/{bucket}"),
        false => format!("https://{bucket}.s3.{region}.amazonaws.com"),
    };
    if let Some(endpoint) = &endpoint {
        let base = match path_style {
            true => Some(endpoint.clone()),
            false => endpoint.with_bucket_host(bucket),
        };
        let base = base.ok_or_else(|| {
            options.wrong("path_style", "false needs an endpoint with a host name")
        })?;
        builder = builder.with_endpoint(base.text());
        url = match path_style {
            true => format!("{}/{bucket}", base.text()),
            false => base.text().to_owned(),
        };
    }
    let mut secrets = options.secrets();
    match &keys.source {
        KeySource::Static { id, secret, token } => {
            builder = builder
                .with_access_key_id(id)
                .with_secret_access_key(secret);
            secrets.push(secret.clone());
            if let Some(token) = token {
                builder = builder.with_token(token);
                secrets.push(token.clone());
            }
        }
        KeySource::Delegated => {
            for (variable, key) in DELEGATES {
                if let Some(value) = environment.get(variable) {
                    builder = builder.with_config(key, value);
                }
            }
        }
        KeySource::Instance => {
            if let Some(endpoint) = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") {
                builder = builder.with_metadata_endpoint(endpoint);
            }
        }
        KeySource::Anonymous => builder = builder.with_skip_signature(true),
    }
    let redactor = Redactor::new(secrets);
    let store = builder.build().map_err(|error| {
        let texts = chain(&error, |text| redactor.scrub(text));
        options.wrong("credentials or endpoint", texts.join(": "))
    })?;
    let identity = match &endpoint {
        Some(endpoint) => format!("s3+{}/{bucket}", endpoint.text()),
        None => format!("s3://{bucket}"),
    };
    let failures = Failures {
        endpoint: endpoint.as_ref().map_or_else(
            || format!("AWS S3 in {region}"),
            |endpoint| endpoint.text().to_owned(),
        ),
        bucket: bucket.to_owned(),
        credentials: keys.from.clone(),
        key_options: "access_key_id and secret_access_key",
        redactor,
    };
    let credentials = match &keys.source {
        KeySource::Anonymous => None,
        _ => Some(Arc::clone(store.credentials())),
    };
    // While it is sent bytes, or copies some, a store may be silent for longer.
    let http = network::client(options, patience, endpoint.as_ref())?
        .with_read_timeout(patience.timeout * SILENT_WRITES);
    let http = TapConnector::new(Arc::clone(valve))
        .connect(&http)
        .map_err(|error| {
            let texts = chain(&error, |text| failures.redactor.scrub(text));
            options.wrong("endpoint", texts.join(": "))
        })?;
    let backend = StoreBackend::new(store, identity.clone(), failures);
    let client = S3Client::new(Place {
        http,
        url,
        region: region.to_owned(),
        credentials,
        patience,
        failures: backend.failures(),
        identity,
    });
    Ok(backend.with_writer(S3Writer::new(client, bucket, checksums)))
}

/// So many timeouts long may a store be silent while it is written to: five minutes, if the
/// timeout is not given.
const SILENT_WRITES: u32 = 30;

/// The variables by which AWS hands roles to processes, containers and pods.
const DELEGATES: [(&str, AmazonS3ConfigKey); 7] = [
    (
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        AmazonS3ConfigKey::WebIdentityTokenFile,
    ),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    ("AWS_ENDPOINT_URL_STS", AmazonS3ConfigKey::StsEndpoint),
    (
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        AmazonS3ConfigKey::ContainerCredentialsRelativeUri,
    ),
    (
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        AmazonS3ConfigKey::ContainerCredentialsFullUri,
    ),
    (
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        AmazonS3ConfigKey::ContainerAuthorizationTokenFile,
    ),
];

//! Azure Blob Storage: account, endpoint and credentials.

use std::sync::Arc;

use millpond_proto::ErrorKind;
use object_store::azure::{AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder};

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

/// The container that `uri` names.
pub(crate) fn open(
    uri: &UfsUri,
    options: &OptionSet<'_>,
    patience: Patience,
    context: &UfsContext,
    valve: &Arc<Valve>,
) -> Result<StoreBackend<MicrosoftAzure>, UfsError> {
    let environment = network::environment(options, &context.environment)?;
    let container = uri.authority();
    let use_emulator = options.flag("use_emulator", false)?;
    let account = uri
        .account()
        .or_else(|| options.text("account"))
        .or_else(|| environment.get("AZURE_STORAGE_ACCOUNT_NAME"))
        .or_else(|| environment.get("AZURE_STORAGE_ACCOUNT"))
        .or_else(|| use_emulator.then_some("devstoreaccount1"))
        .ok_or_else(|| options.wrong("account", "missing; give it here or in the URI"))?;
    let endpoint = options
        .text("endpoint")
        .map(|text| Endpoint::parse(options, text))
        .transpose()?;
    let mut builder = MicrosoftAzureBuilder::new()
        .with_container_name(container)
        .with_account(account)
        .with_use_emulator(use_emulator)
        .with_client_options(network::client(options, patience, endpoint.as_ref())?)
        .with_retry(network::retry(patience))
        .with_http_connector(TapConnector::new(Arc::clone(valve)));
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(endpoint.text().to_owned());
    }
    let (keys, from) = keys(options, &environment, use_emulator)?;
    let mut secrets = options.secrets();
    match keys {
        Keys::Given(settings) => {
            for (key, value, is_secret) in settings {
                if is_secret {
                    secrets.push(value.clone());
                }
                builder = builder.with_config(key, value);
            }
        }
        Keys::Instance => {}
        Keys::Anonymous => builder = builder.with_skip_signature(true),
    }
    let redactor = Redactor::new(secrets);
    let store = builder.build().map_err(|error| {
        let texts = chain(&error, |text| redactor.scrub(text));
        options.wrong("credentials or endpoint", texts.join(": "))
    })?;
    let identity = match &endpoint {
        Some(endpoint) => format!("az+{}/{container}", endpoint.text()),
        None => format!("abfs://{container}@{account}"),
    };
    let failures = Failures {
        endpoint: endpoint.map_or_else(
            || format!("the Azure account {account}"),
            |endpoint| endpoint.text().to_owned(),
        ),
        bucket: container.to_owned(),
        credentials: from.to_owned(),
        key_options: "access_key, sas_token or client_secret",
        redactor,
    };
    // The client takes every prefix for a directory and drops the blob of that name, the
    // directory's marker as it thinks.
    Ok(StoreBackend::new(store, identity, failures).with_prefixes_left_out())
}

enum Keys {
    /// Setting, value, whether it is a secret.
    Given(Vec<(AzureConfigKey, String, bool)>),
    Instance,
    Anonymous,
}

fn keys(
    options: &OptionSet<'_>,
    environment: &Environment,
    use_emulator: bool,
) -> Result<(Keys, &'static str), UfsError> {
    let of_options = || {
        let settings: Vec<_> = SETTINGS
            .into_iter()
            .filter_map(|(key, option, _, is_secret)| {
                Some((key, options.text(option)?.to_owned(), is_secret))
            })
            .collect();
        has_key(&settings).then_some((Keys::Given(settings), "the options"))
    };
    let of_environment = || {
        let settings: Vec<_> = SETTINGS
            .into_iter()
            .filter_map(|(key, _, variable, is_secret)| {
                Some((key, environment.get(variable)?.to_owned(), is_secret))
            })
            .collect();
        has_key(&settings).then_some((Keys::Given(settings), "the environment"))
    };
    let none = |what: &str| {
        UfsError::new(
            ErrorKind::Denied,
            Op::Open,
            options.uri(),
            format!("no credentials in {what}"),
        )
    };
    let instance = (Keys::Instance, "the managed identity of this machine");
    match Credentials::of(options)? {
        Credentials::Auto if use_emulator => {
            Ok(of_options().unwrap_or((Keys::Instance, "the emulator")))
        }
        Credentials::Auto => Ok(of_options().or_else(of_environment).unwrap_or(instance)),
        Credentials::Static => of_options().ok_or_else(|| none("the options")),
        Credentials::Env => of_environment().ok_or_else(|| none("the environment")),
        Credentials::Instance => Ok(instance),
        Credentials::Anonymous => Ok((Keys::Anonymous, "nowhere, credentials=anonymous")),
        Credentials::Profile => Err(options.wrong("credentials", "az has no profiles")),
    }
}

/// Whether there is more than an identity: something to prove it with.
fn has_key(settings: &[(AzureConfigKey, String, bool)]) -> bool {
    settings
        .iter()
        .any(|(key, _, is_secret)| *is_secret || matches!(key, AzureConfigKey::FederatedTokenFile))
}

/// Setting, option, variable, whether it is a secret.
const SETTINGS: [(AzureConfigKey, &str, &str, bool); 6] = [
    (
        AzureConfigKey::AccessKey,
        "access_key",
        "AZURE_STORAGE_ACCOUNT_KEY",
        true,
    ),
    (
        AzureConfigKey::SasKey,
        "sas_token",
        "AZURE_STORAGE_SAS_TOKEN",
        true,
    ),
    (
        AzureConfigKey::AuthorityId,
        "tenant_id",
        "AZURE_TENANT_ID",
        false,
    ),
    (
        AzureConfigKey::ClientId,
        "client_id",
        "AZURE_CLIENT_ID",
        false,
    ),
    (
        AzureConfigKey::ClientSecret,
        "client_secret",
        "AZURE_CLIENT_SECRET",
        true,
    ),
    (
        AzureConfigKey::FederatedTokenFile,
        "federated_token_file",
        "AZURE_FEDERATED_TOKEN_FILE",
        false,
    ),
];

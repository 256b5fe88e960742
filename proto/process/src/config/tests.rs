use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    listen: String,
    zone: Option<String>,
    #[serde(with = "humantime_serde")]
    interval: Duration,
    options: BTreeMap<String, String>,
    memory: Memory,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Memory {
    capacity: Size,
    shards: u32,
    secret_token: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:7000".to_owned(),
            zone: None,
            interval: Duration::from_secs(1),
            options: BTreeMap::new(),
            memory: Memory::default(),
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            capacity: Size::gib(1),
            shards: 4,
            secret_token: "hush".to_owned(),
        }
    }
}

#[derive(Default, Serialize)]
struct Flags {
    listen: Option<String>,
    memory: MemoryFlags,
}

#[derive(Default, Serialize)]
struct MemoryFlags {
    capacity: Option<Size>,
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn load_test(toml: &str, env: &[(&str, &str)], flags: &Flags) -> Result<Settings, ConfigError> {
    let file = file(toml);
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    load_from(Some(file.path()), ENV_PREFIX, env, flags)
}

fn fails(toml: &str, env: &[(&str, &str)]) -> String {
    load_test(toml, env, &Flags::default())
        .unwrap_err()
        .to_string()
}

#[test]
fn later_layers_win_and_leave_the_rest() {
    let toml = "listen = \"file:1\"\ninterval = \"2s\"\n[memory]\ncapacity = \"2GiB\"\nshards = 8";
    let env = [
        ("MILLPOND_LISTEN", "env:1"),
        ("MILLPOND_ZONE", "12"),
        ("MILLPOND_MEMORY__CAPACITY", "3GiB"),
        ("MILLPOND_OPTIONS__REGION", "eu-1"),
    ];
    let flags = Flags {
        listen: None,
        memory: MemoryFlags {
            capacity: Some(Size::gib(4)),
        },
    };
    let settings = load_test(toml, &env[..1], &flags).unwrap();
    assert_eq!(settings.listen, "env:1");
    assert_eq!(settings.interval, Duration::from_secs(2));
    assert_eq!(settings.memory.capacity, Size::gib(4));
    assert_eq!(settings.memory.shards, 8);
    let settings = load_test(toml, &env[2..], &Flags::default()).unwrap();
    assert_eq!(settings.memory.capacity, Size::gib(3));
    assert_eq!(settings.options["region"], "eu-1");
    let env = std::iter::empty();
    let defaults: Settings = load_from(None, ENV_PREFIX, env, &Flags::default()).unwrap();
    assert_eq!(defaults, Settings::default());
}

#[test]
fn unknown_keys_are_errors_that_name_the_nearest_and_the_file() {
    let message = fails("[memory]\ncapcity = \"1GiB\"", &[]);
    assert!(message.contains("`memory.capcity`"), "{message}");
    assert!(
        message.contains("did you mean `memory.capacity`?"),
        "{message}"
    );
    assert!(
        message.contains("/tmp") || message.contains("tmp"),
        "{message}"
    );
    let message = fails("qqq = 1", &[]);
    assert!(
        message.contains("`qqq`") && message.contains("--print-config"),
        "{message}"
    );
}

#[test]
fn free_maps_take_any_key() {
    let settings = load_test("[options]\nendpoint = \"x\"", &[], &Flags::default()).unwrap();
    assert_eq!(settings.options["endpoint"], "x");
}

#[test]
fn unknown_variables_are_ignored() {
    let env = [
        ("MILLPOND_COORDINATOR_PORT", "tcp://10.0.0.1:7000"),
        ("MILLPOND_MEMORY", "3"),
        ("MILLPOND_MEMORY__CAPACITY__X", "3"),
        ("PATH", "/bin"),
    ];
    let settings = load_test("", &env, &Flags::default()).unwrap();
    assert_eq!(settings, Settings::default());
}

#[test]
fn bad_values_name_the_key_and_where_it_came_from() {
    let message = fails("[memory]\ncapacity = \"4 elephants\"", &[]);
    assert!(
        message.contains("`memory.capacity`") && message.contains("elephants"),
        "{message}"
    );
    let message = fails("interval = \"soon\"", &[]);
    assert!(message.contains("`interval`"), "{message}");
    let message = fails("", &[("MILLPOND_MEMORY__CAPACITY", "-1")]);
    assert!(
        message.contains("environment variable MILLPOND_MEMORY__CAPACITY"),
        "{message}"
    );
    let message = fails("listen = 7000", &[]);
    assert!(
        message.contains("`listen`") && message.contains("string"),
        "{message}"
    );
}

#[test]
fn broken_and_missing_files_are_named() {
    let message = fails("listen = [", &[]);
    assert!(
        message.contains("not valid TOML") && message.contains("line 1"),
        "{message}"
    );
    let missing = Path::new("/nonexistent/node.toml");
    let error = load::<Settings>(Some(missing), ENV_PREFIX, &Flags::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.to_string().contains("/nonexistent/node.toml"),
        "{error}"
    );
}

#[test]
fn printed_settings_read_back_without_their_secrets() {
    let mut settings = Settings::default();
    settings
        .options
        .insert("endpoint".to_owned(), "http://x\"y\n".to_owned());
    settings
        .options
        .insert("secret_access_key".to_owned(), "hush".to_owned());
    let toml = to_toml(&settings).unwrap();
    assert!(!toml.contains("hush"), "{toml}");
    let back = load_test(&toml, &[], &Flags::default()).unwrap();
    assert_eq!(back.options["endpoint"], settings.options["endpoint"]);
    assert_eq!(back.options["secret_access_key"], "***");
    assert_eq!(back.memory.capacity, settings.memory.capacity);
    assert_eq!(back.interval, settings.interval);
}

#[test]
fn the_data_directory_names_the_role() {
    let dir = default_data_dir("cache-node");
    assert!(
        dir.is_absolute() && dir.ends_with("cache-node"),
        "{}",
        dir.display()
    );
}

//! One mount of this host at a glance.

use std::path::Path;

use millpond_fuse::control::{Config, ConfigNode};

use crate::mounted::OurMount;
use crate::output::{self, OutputArgs, human};

/// Shows the mount that `path` lies in.
pub(super) fn show(path: &Path, output: OutputArgs) -> anyhow::Result<()> {
    let config = OurMount::around(path)?.config()?;
    if output.is_json() {
        return output::json(&config);
    }
    for (name, value) in lines(&config) {
        output::line(format!("{name:<12}  {value}"))?;
    }
    Ok(())
}

fn lines(config: &Config) -> Vec<(&'static str, String)> {
    let cluster = match &config.cluster {
        Some(cluster) if config.connected => format!("{cluster}, {}", nodes(&config.nodes)),
        Some(cluster) => format!("{cluster}, no coordinator answers (reads go on)"),
        None => "none: a mount of one store".to_owned(),
    };
    let cache = match &config.cache_dir {
        Some(dir) => format!("{dir}, up to {}", human(config.cache_size)),
        None => "none".to_owned(),
    };
    let passthrough = match &config.passthrough_off_because {
        Some(why) => format!("{}: {why}", config.passthrough),
        None => config.passthrough.clone(),
    };
    let hints = if config.takes_hints {
        "taken"
    } else {
        "not taken: the mount was made without CAP_SYS_ADMIN"
    };
    let limit = config.memory_limit.map_or_else(|| "none".to_owned(), human);
    vec![
        ("mount", config.directory.clone()),
        ("source", config.source.clone()),
        ("cluster", cluster),
        (
            "memory",
            format!("{} for data, limit {limit}", human(config.memory)),
        ),
        ("cache", cache),
        ("passthrough", passthrough),
        (
            "metadata",
            format!("{}, {} s", config.metadata_mode, config.metadata_ttl),
        ),
        ("hints", hints.to_owned()),
        ("version", config.version.clone()),
    ]
}

/// How many nodes there are, and which of them are slower than the store.
fn nodes(nodes: &[ConfigNode]) -> String {
    let slow = nodes.iter().filter(|node| node.gone_round);
    let slow: Vec<&str> = slow.map(|node| node.node.as_str()).collect();
    match slow.as_slice() {
        [] => format!("{} nodes", nodes.len()),
        slow => format!(
            "{} nodes, slower than the store and gone round: {}",
            nodes.len(),
            slow.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_gone_round_is_named() {
        let node = |id: u32, gone_round| ConfigNode {
            node: format!("node-{id}"),
            address: String::new(),
            state: "active".to_owned(),
            zone: String::new(),
            gone_round,
        };
        let mut all = [node(1, false), node(2, false)];
        assert_eq!(nodes(&all), "2 nodes");
        all[1].gone_round = true;
        assert!(nodes(&all).ends_with("gone round: node-2"));
    }

    #[test]
    fn what_does_not_work_is_told_with_its_reason() {
        let config = Config {
            passthrough: "off".to_owned(),
            passthrough_off_because: Some("the kernel does not offer it".to_owned()),
            cluster: Some("c".to_owned()),
            ..Config::default()
        };
        let line = |name: &str| {
            let all = lines(&config);
            all.into_iter().find(|line| line.0 == name).unwrap().1
        };
        assert_eq!(line("passthrough"), "off: the kernel does not offer it");
        assert!(line("cluster").contains("no coordinator"));
        assert!(line("hints").contains("CAP_SYS_ADMIN"));
    }
}

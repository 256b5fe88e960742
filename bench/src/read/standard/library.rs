//! The client library in this process, without a mount: from its memory tier.

use anyhow::Result;
use millpond_client::{ClientConfig, FileSystem};
use millpond_process::shared_registry;

use super::{Stage, asked};
use crate::cluster::UfsUse;
use crate::measure::{Arm, interleave};
use crate::process_cluster::Metrics;
use crate::read::SCENARIO;
use crate::read::args::Pattern;
use crate::read::shape::Shape;
use crate::read::source::{Library, Source};
use crate::read::verify;
use crate::record::Row;

/// Reads that need no store.
pub(super) fn run(stage: &Stage<'_>, wanted: &[&str]) -> Result<Vec<Row>> {
    const LIMIT: &str = "the same read of a local file";
    let context = stage.context;
    millpond_process::init_crypto();
    let registry = shared_registry();
    let config = ClientConfig {
        memory: stage.ample_memory().bytes(),
        metadata_ttl: std::time::Duration::from_secs(3600),
        ..ClientConfig::default()
    };
    let uri = stage.uri();
    let connecting = FileSystem::standalone(&uri, [].into(), config, &registry);
    let filesystem = context.runtime.block_on(connecting)?;
    let source = Source::Library(Library {
        filesystem: filesystem.clone(),
        root: "/".to_owned(),
        runtime: context.runtime.clone(),
    });
    let local = stage.local();
    stage.warm(&source)?;
    stage.warm(&local)?;
    let used = || Ok::<_, anyhow::Error>(UfsUse::of(&Metrics::of_registry(&registry)?));
    let mut rows = Vec::new();
    for shape in [Shape::SEQUENTIAL, Shape::new(Pattern::Random, 4096, 4)] {
        let case = format!("library/tier-warm/{}", shape.name());
        if !wanted.contains(&&*case) {
            continue;
        }
        let workload = stage.workload(stage.data.files(), shape);
        let before = used()?;
        let samples = interleave(
            context.runs,
            &mut [
                Arm::new(&*case, |_| stage.run(&case, &workload, &source, &[])),
                Arm::new(LIMIT, |_| stage.run(LIMIT, &workload, &local, &[])),
            ],
        )?;
        let figure = shape.figure();
        rows.push(
            Row::measured(SCENARIO, case, figure, &samples[0])
                .against(LIMIT, figure, &samples[1])
                .proved(asked(used()? - before, None)),
        );
    }
    verify::enter(&stage.verify(&source), &mut rows);
    context.runtime.block_on(filesystem.shutdown());
    Ok(rows)
}

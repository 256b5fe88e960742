//! The command line: what there is to call, and the way there.

use std::io;

use clap::{Parser, Subcommand};
use millpond_process::logging::{self, LogArgs, LogConfig};
use millpond_process::shutdown;

use crate::{child, coordinators, dev, fs, gc, info, mount, mounts, ring, stats, status, token};

/// A distributed block cache between your data lake and your machines.
///
/// Start with `millpond dev`: it runs a whole cluster and a mount on this machine.
#[derive(Debug, Parser)]
#[command(name = "millpond", version, propagate_version = true)]
#[command(max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

/// The help of each is that of its arguments.
#[derive(Debug, Subcommand)]
enum Command {
    Dev(Box<dev::DevArgs>),
    Mount(Box<mount::MountArgs>),
    Umount(mount::UmountArgs),
    Stats(stats::StatsArgs),
    Info(info::InfoArgs),
    Mounts(mounts::MountsArgs),
    Coordinators(coordinators::CoordinatorsArgs),
    Token(token::TokenArgs),
    Fs(fs::FsArgs),
    Gc(gc::GcArgs),
    Status(status::StatusArgs),
    Ring(ring::RingArgs),
    #[command(hide = true)]
    DevCoordinator(Box<child::DevCoordinatorArgs>),
    #[command(hide = true)]
    DevNode(Box<child::DevNodeArgs>),
}

/// Runs the command; an interrupted one is dropped, so that what it holds is cleaned up.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<()> {
    let Cli { log, command } = cli;
    match command {
        // These run until they are told to stop, and choose their logs themselves.
        Command::DevCoordinator(args) => child::coordinator(*args).await,
        Command::DevNode(args) => child::node(*args).await,
        Command::Mount(args) => mount::run(*args).await,
        Command::Dev(args) => {
            init_log(&log)?;
            dev::run(*args).await
        }
        short => {
            init_log(&log)?;
            tokio::select! {
                result = Box::pin(run_short(short)) => unless_pipe_closed(result),
                () = shutdown::signal() => Err(anyhow::anyhow!("interrupted")),
            }
        }
    }
}

async fn run_short(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Umount(args) => mount::run_umount(args).await,
        Command::Stats(args) => stats::run(args).await,
        Command::Info(args) => info::run(args).await,
        Command::Mounts(args) => mounts::run(args).await,
        Command::Coordinators(args) => coordinators::run(args).await,
        Command::Token(args) => token::run(args).await,
        Command::Fs(args) => fs::run(args).await,
        Command::Gc(args) => gc::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Ring(args) => ring::run(args).await,
        Command::Dev(_) | Command::Mount(_) | Command::DevCoordinator(_) | Command::DevNode(_) => {
            Ok(())
        }
    }
}

/// Commands print their result; only what needs attention is logged beside it.
fn init_log(args: &LogArgs) -> anyhow::Result<()> {
    let level = args.log_level.clone().unwrap_or_else(|| "warn".to_owned());
    logging::init(&LogConfig {
        level,
        ..args.config()
    })?;
    Ok(())
}

/// A reader like `head` that closed the pipe has seen enough.
fn unless_pipe_closed(result: anyhow::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        other => other,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let pipe = |cause: &(dyn std::error::Error + 'static)| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        kind == Some(io::ErrorKind::BrokenPipe)
    };
    error.chain().any(pipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_visible_command_shows_an_example() {
        fn check(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
                let name = format!("{path} {}", sub.get_name());
                if sub.get_subcommands().next().is_some() {
                    check(sub, &name);
                } else {
                    let help = sub.clone().render_long_help().to_string();
                    assert!(help.contains("Example"), "{name} has no example:\n{help}");
                }
            }
        }
        check(&Cli::command(), "millpond");
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let closed = anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(unless_pipe_closed(Err(closed.context("cannot print"))).is_ok());
        assert!(unless_pipe_closed(Err(anyhow::anyhow!("else"))).is_err());
    }
}

//! The `millpond` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    millpond::main(std::env::args_os())
}

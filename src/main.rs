//! The binary: reads the command line, runs one command, prints the error chain once, exits.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    playhead::cli::run(std::env::args_os())
}

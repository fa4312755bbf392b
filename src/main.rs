//! The binary: reads the command line, runs one command, prints the error chain once, exits.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    playhead::cli::run(std::env::args_os())
}

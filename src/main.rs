//! The `assay` binary: parse the command line, run the subcommand, map its result to an exit code.

fn main() {}

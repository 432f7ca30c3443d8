//! `scorer-cpu run [--root DIR]`, `scorer-cpu selftest`, `scorer-cpu version`.

use assay_protocol::ExitClass;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

const USAGE: &str = "usage: scorer-cpu run [--root DIR] | selftest | version
run       do the job in DIR/job with the model in DIR/model, write DIR/out (DIR is / unless given)
selftest  compute a small known model and compare
version   print what stands in every result";
/// sysexits' EX_USAGE.
const EXIT_USAGE: u8 = 64;
/// The engine asks for it before every product and, where it is not set, counts the cores anew in
/// `/proc/cpuinfo` each time, which takes longer than a product of a small model.
const THREADS: &str = "RAYON_NUM_THREADS";

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<Option<&str>> = args.iter().map(|arg| arg.to_str()).collect();
    match (words.as_slice(), args.as_slice()) {
        ([Some("run")], _) => run(&args, Path::new("/")),
        ([Some("run"), Some("--root"), _], [_, _, root]) => run(&args, Path::new(root)),
        ([Some("selftest")], _) => match assay_scorer_cpu::selftest() {
            Ok(()) => say("selftest passed"),
            Err(failure) => {
                writeln!(std::io::stderr(), "{failure}").ok();
                finish(failure.code.class())
            }
        },
        ([Some("version")], _) => {
            let info = assay_scorer_cpu::scorer_info();
            say(&format!(
                "scorer-cpu {}, {}, {}",
                info.version, info.engine, info.device
            ))
        }
        _ => {
            writeln!(std::io::stderr(), "{USAGE}").ok();
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// Starts this program once more in its own place, with the number of threads set; works on as it
/// is, only slower, where that is not possible.
fn run(args: &[OsString], root: &Path) -> ExitCode {
    if std::env::var_os(THREADS).is_none()
        && let Ok(threads) = std::thread::available_parallelism()
        && let Ok(own) = std::env::current_exe()
    {
        let mut again = Command::new(own);
        let _not_possible = again.args(args).env(THREADS, threads.to_string()).exec();
    }
    finish(assay_scorer_cpu::run(root))
}

fn finish(class: ExitClass) -> ExitCode {
    ExitCode::from(class.exit_code())
}

fn say(line: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => finish(ExitClass::Infra),
    }
}

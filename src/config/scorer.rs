//! `[scorer]` and `[[worker]]`: where models run, and within which bounds.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::reader::Section;
use super::value::{Bytes, duration_text};

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// How the scorer is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "runner", rename_all = "lowercase")]
pub enum Runner {
    /// In a sealed container, from the image that the era names. The engine's socket is the
    /// usual one, or what `DOCKER_HOST` says.
    Docker,
    /// As a child process without a seal; only for hosts without Docker, in demo and development.
    Process {
        /// The scorer binary.
        program: PathBuf,
        /// Always true: the operator said so.
        allow_process: bool,
    },
}

/// `[scorer]`: runner, resources and limits of one job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scorer {
    /// How it is started.
    #[serde(flatten)]
    pub runner: Runner,
    /// Memory of one job.
    pub memory: Bytes,
    /// CPU cores of one job.
    pub cpus: f64,
    /// Processes and threads of one job.
    pub pids: u32,
    /// Size of the job's temporary folder in memory.
    pub scratch: Bytes,
    /// Deadline of loading the model.
    #[serde(serialize_with = "duration_text")]
    pub load_timeout: Duration,
    /// Deadline of generating all replies.
    #[serde(serialize_with = "duration_text")]
    pub generate_timeout: Duration,
    /// Deadline of the whole job.
    #[serde(serialize_with = "duration_text")]
    pub total_timeout: Duration,
    /// Longest time without progress.
    #[serde(serialize_with = "duration_text")]
    pub stall_timeout: Duration,
}

/// `[[worker]]`: one place where models are scored, one at a time. Everything else about it (folders,
/// container names, the lease's holder) follows from its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Worker {
    /// Unique name; it identifies the holder of a lease.
    pub name: String,
    /// UUIDs of the GPUs that it owns; a model is spread over all of them. Empty for CPU.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<String>,
    /// Largest model that it takes; absent: every one that the era admits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_size_max: Option<Bytes>,
    /// Precision that its engine computes in.
    pub dtype: String,
    /// Sequences that its engine decodes together.
    pub sequences: u32,
}

/// `[control]`: the control model that each worker must reproduce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Control {
    /// Folder with `control.json` and `model/`.
    pub folder: PathBuf,
    /// Hex SHA-256 of `control.json`.
    pub sha256: String,
}

fn runner(s: &mut Section<'_>) -> Option<Runner> {
    let name: String = s.required("runner")?;
    if s.has("image") {
        s.ignore(&["image"]);
        let reason = "the image is part of the rules; give it as scoring.image of an [[era]]";
        s.problem("image", reason);
    }
    let program = s.optional_path("program");
    let allow_process = s.or("allow_process", false);
    match name.as_str() {
        "docker" => Some(Runner::Docker),
        "process" => {
            if !allow_process {
                let reason = "the process runner has no seal: miners' models would run beside your \
                              keys; for trials only, with allow_process = true";
                s.problem("runner", reason);
            }
            let program = program.or_else(|| {
                s.problem("program", "is missing; the process runner needs it");
                None
            })?;
            Some(Runner::Process {
                program,
                allow_process,
            })
        }
        other => {
            s.problem("runner", format!("is {other:?}, must be docker or process"));
            None
        }
    }
}

pub(super) fn scorer(mut s: Section<'_>) -> Option<Scorer> {
    let runner = runner(&mut s);
    let memory = s.within("memory", Bytes::gib(32), Bytes::mib(256)..=Bytes::gib(4096));
    let cpus = s.within("cpus", 4.0, 0.1..=1024.0);
    let pids = s.within("pids", 512, 16..=65_536);
    let scratch = s.within("scratch", Bytes::gib(1), Bytes::mib(16)..=Bytes::gib(256));
    let load_timeout = s.duration("load_timeout", 15 * MINUTE, DAY);
    let generate_timeout = s.duration("generate_timeout", HOUR, DAY);
    let total_timeout = s.duration("total_timeout", 90 * MINUTE, DAY);
    let stall_timeout = s.duration("stall_timeout", 5 * MINUTE, DAY);
    for (key, part) in [
        ("load_timeout", load_timeout),
        ("generate_timeout", generate_timeout),
    ] {
        if part > total_timeout {
            s.problem(key, "is longer than total_timeout");
        }
    }
    s.finish();
    Some(Scorer {
        runner: runner?,
        memory,
        cpus,
        pids,
        scratch,
        load_timeout,
        generate_timeout,
        total_timeout,
        stall_timeout,
    })
}

pub(super) fn workers(root: &mut Section<'_>) -> Vec<Worker> {
    let mut names = BTreeSet::new();
    let mut owned = BTreeSet::new();
    let mut workers = Vec::new();
    let sections = root.sections("worker");
    if sections.is_empty() {
        root.problem("worker", "is missing; give at least one [[worker]]");
    }
    for s in sections {
        workers.extend(worker(s, &mut names, &mut owned));
    }
    workers
}

fn worker(
    mut s: Section<'_>,
    names: &mut BTreeSet<String>,
    owned: &mut BTreeSet<String>,
) -> Option<Worker> {
    let name: Option<String> = s.required("name");
    let gpus: Vec<String> = s.or("gpus", Vec::new());
    let usual = if gpus.is_empty() {
        "float32"
    } else {
        "bfloat16"
    };
    let dtype: String = s.or("dtype", usual.to_owned());
    let sequences = s.within("sequences", 128, 1..=4096);
    let model_size_max = s.optional("model_size_max");
    if let Some(name) = &name
        && !(is_plain_name(name) && names.insert(name.clone()))
    {
        let reason = "must be unique, 1 to 32 letters, digits, - or _";
        s.problem("name", format!("is {name:?}, {reason}"));
    }
    for gpu in &gpus {
        if !gpu.starts_with("GPU-") {
            let reason = "is no UUID; `nvidia-smi -L` and `assay check` list them";
            s.problem("gpus", format!("{gpu:?} {reason}"));
        } else if !owned.insert(gpu.clone()) {
            s.problem("gpus", format!("{gpu} is owned by another worker already"));
        }
    }
    if !["float32", "float16", "bfloat16"].contains(&dtype.as_str()) {
        let reason = "must be float32, float16 or bfloat16";
        s.problem("dtype", format!("is {dtype:?}, {reason}"));
    }
    s.finish();
    Some(Worker {
        name: name?,
        gpus,
        model_size_max,
        dtype,
        sequences,
    })
}

/// `None` when the section is absent.
pub(super) fn control(root: &mut Section<'_>) -> Option<Control> {
    if !root.has("control") {
        return None;
    }
    let mut s = root.section("control");
    let folder = s.path_value("folder");
    let sha256: Option<String> = s.required("sha256");
    let hex = |text: &String| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if sha256.as_ref().is_some_and(|text| !hex(text)) {
        s.problem(
            "sha256",
            "must be 64 hex digits; `assay control record` prints it",
        );
    }
    s.finish();
    Some(Control {
        folder: folder?,
        sha256: sha256?,
    })
}

pub(super) fn is_plain_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=32).contains(&name.len()) && name.bytes().all(plain)
}

//! Every restriction of a scorer's container, in one place.

use super::super::job::{JobPath, PreparedJob};
use super::super::runner::{ENVIRONMENT, GRACE};
use super::super::watchdog::OUT_BYTES_MAX;
use bollard::models::{
    ContainerCreateBody, DeviceRequest, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// Label with the node's name.
pub(super) const LABEL_NODE: &str = "assay.node";
/// Label with the job's id.
pub(super) const LABEL_JOB: &str = "assay.job";
const USER: &str = "65532:65532";

/// What one container may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    /// Memory in bytes; there is no swap beside it.
    pub memory_bytes: u64,
    /// Thousandths of a CPU.
    pub cpu_millis: u32,
    /// Processes and threads.
    pub pids: u32,
    /// Size of `/dev/shm` in bytes.
    pub shm_bytes: u64,
    /// Size of `/tmp` in bytes; it is memory.
    pub tmp_bytes: u64,
    /// UUIDs of the GPUs that the container sees; none on a CPU host.
    pub gpus: Vec<String>,
    /// Time between asking the scorer to end and killing it.
    pub grace: Duration,
}

impl Default for Resources {
    /// For a small model on CPU.
    fn default() -> Self {
        Self {
            memory_bytes: 2 << 30,
            cpu_millis: 1000,
            pids: 256,
            shm_bytes: 64 << 20,
            tmp_bytes: 256 << 20,
            gpus: Vec::new(),
            grace: GRACE,
        }
    }
}

/// The container of one job: no network, no capability, no privilege to gain, read-only but for
/// `/out` and a bounded `/tmp`, everything bounded.
pub(super) fn container(
    job: &PreparedJob,
    image_id: &str,
    resources: &Resources,
    node: &str,
) -> ContainerCreateBody {
    let mut env: Vec<String> = ENVIRONMENT
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if !resources.gpus.is_empty() {
        env.push("NVIDIA_DRIVER_CAPABILITIES=compute,utility".to_owned());
    }
    let labels = [
        (LABEL_JOB, job.job.job_id.clone()),
        ("assay.attempt", job.job.attempt.to_string()),
        (LABEL_NODE, node.to_owned()),
    ];
    ContainerCreateBody {
        image: Some(image_id.to_owned()),
        cmd: Some(vec!["run".to_owned()]),
        env: Some(env),
        user: Some(USER.to_owned()),
        working_dir: Some("/".to_owned()),
        network_disabled: Some(true),
        stop_timeout: i64::try_from(resources.grace.as_secs()).ok(),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
        host_config: Some(host_config(job, resources)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(job: &PreparedJob, resources: &Resources) -> HostConfig {
    let memory = signed(job.memory_bytes(resources.memory_bytes));
    HostConfig {
        network_mode: Some("none".to_owned()),
        readonly_rootfs: Some(true),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        privileged: Some(false),
        ipc_mode: Some("private".to_owned()),
        pids_limit: Some(i64::from(resources.pids)),
        memory: Some(memory),
        memory_swap: Some(memory),
        nano_cpus: Some(i64::from(resources.cpu_millis) * 1_000_000),
        shm_size: Some(signed(resources.shm_bytes)),
        ulimits: Some(ulimits(resources)),
        tmpfs: Some(HashMap::from([(
            "/tmp".to_owned(),
            // Engines compile kernels there and load them.
            format!(
                "rw,exec,nosuid,nodev,mode=1777,size={}",
                resources.tmp_bytes
            ),
        )])),
        init: Some(true),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("local".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), "10m".to_owned()),
                ("max-file".to_owned(), "2".to_owned()),
            ])),
        }),
        mounts: Some(mounts(job)),
        device_requests: devices(&resources.gpus),
        ..HostConfig::default()
    }
}

/// No core dumps. No file larger than what `/out` may hold, or `/tmp` where that is more: the watchdog sees
/// the folder's sum only at its next look.
fn ulimits(resources: &Resources) -> Vec<ResourcesUlimits> {
    let fsize = signed(OUT_BYTES_MAX.max(resources.tmp_bytes));
    [("core", 0), ("fsize", fsize)]
        .map(|(name, limit)| ResourcesUlimits {
            name: Some(name.to_owned()),
            soft: Some(limit),
            hard: Some(limit),
        })
        .into()
}

/// Mounts, never binds: the engine makes a missing source of a bind as an empty folder and starts,
/// so that a wrong path would become a score.
pub(super) fn mounts(job: &PreparedJob) -> Vec<Mount> {
    let mount = |source: &Path, target: &str, read_only: bool| Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    };
    vec![
        mount(&job.model_dir, "/model", true),
        mount(&job.path(JobPath::Job), "/job", true),
        mount(&job.path(JobPath::Out), "/out", false),
    ]
}

fn devices(gpus: &[String]) -> Option<Vec<DeviceRequest>> {
    (!gpus.is_empty()).then(|| {
        vec![DeviceRequest {
            driver: Some("nvidia".to_owned()),
            device_ids: Some(gpus.to_vec()),
            capabilities: Some(vec![vec!["gpu".to_owned()]]),
            ..DeviceRequest::default()
        }]
    })
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

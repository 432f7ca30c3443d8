//! The container engine: each call with a deadline, each failure with the decision it asks for.

use super::super::ScoringError;
use super::super::logs;
use super::settings::{LABEL_JOB, LABEL_NODE};
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse};
use bollard::query_parameters::{
    BuildImageOptionsBuilder, CreateContainerOptionsBuilder, InspectContainerOptions,
    KillContainerOptionsBuilder, ListContainersOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptions, StartContainerOptions, WaitContainerOptions,
};
use futures::{Stream, StreamExt, TryStreamExt};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// Deadline of a plain call.
const CALL: Duration = Duration::from_secs(30);
/// Deadline of calls that move data or start things.
const LONG_CALL: Duration = Duration::from_secs(120);
/// Pause before an interrupted wait is taken up again; the job's watchdog bounds the whole.
const WAIT_AGAIN: Duration = Duration::from_secs(1);

/// An image, pinned by content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImagePin {
    /// Image ID of this host's engine, `sha256:` + 64 hex digits.
    Id(String),
    /// `name@sha256:…`, an image that was pulled from a registry.
    Digest {
        /// Repository without tag.
        name: String,
        /// `sha256:` + 64 hex digits.
        digest: String,
    },
}

impl std::str::FromStr for ImagePin {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_digest = |text: &str| {
            let hex = text.strip_prefix("sha256:").unwrap_or_default();
            hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
        match text.split_once('@') {
            None if is_digest(text) => Ok(Self::Id(text.to_owned())),
            Some((name, digest))
                if is_digest(digest) && !name.is_empty() && name.chars().all(plain) =>
            {
                Ok(Self::Digest {
                    name: name.to_owned(),
                    digest: digest.to_owned(),
                })
            }
            _ => Err(format!(
                "{text:?} does not pin an image: give `sha256:<64 hex>` or `name@sha256:<64 hex>`, \
                 since a tag can move"
            )),
        }
    }
}

impl std::fmt::Display for ImagePin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => f.write_str(id),
            Self::Digest { name, digest } => write!(f, "{name}@{digest}"),
        }
    }
}

/// A container engine that answered. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine(Docker);

impl Engine {
    /// Connects to the engine's socket (`DOCKER_HOST` when it names one, else the usual place).
    ///
    /// # Errors
    /// [`ScoringError::Unavailable`] when none answers.
    pub async fn connect() -> Result<Self, ScoringError> {
        let unavailable = |error: Error| ScoringError::Unavailable(text(&error));
        let docker = Docker::connect_with_unix_defaults().map_err(unavailable)?;
        let docker = tokio::time::timeout(CALL, docker.negotiate_version())
            .await
            .map_err(|_| ScoringError::Unavailable("no answer in time".to_owned()))?
            .map_err(unavailable)?;
        Ok(Self(docker))
    }

    /// The engine's version, as it says.
    ///
    /// # Errors
    /// [`ScoringError::Engine`].
    pub async fn version(&self) -> Result<String, ScoringError> {
        let version = timed("tell its version", CALL, self.0.version()).await?;
        Ok(version.version.unwrap_or_default())
    }

    /// Builds an image that holds nothing but a static binary, which is its entry point. No network,
    /// no registry. Returns the image ID.
    ///
    /// # Errors
    /// [`ScoringError`] when the binary cannot be read or the engine does not build.
    pub async fn build_image_from_binary(&self, binary: &Path) -> Result<String, ScoringError> {
        let bytes = tokio::fs::read(binary)
            .await
            .map_err(|source| ScoringError::Binary {
                binary: binary.to_owned(),
                source,
            })?;
        let context = build_context(&bytes).map_err(ScoringError::disk(binary))?;
        let options = BuildImageOptionsBuilder::new()
            .dockerfile("Dockerfile")
            .networkmode("none")
            .rm(true)
            .forcerm(true)
            .q(true)
            .build();
        let body = bollard::body_full(context.into());
        let steps = self.0.build_image(options, None, Some(body));
        let id = timed("build an image", LONG_CALL, image_id(steps)).await?;
        id.parse::<ImagePin>().map_err(|_| ScoringError::Engine {
            doing: "build an image",
            message: "it named no image ID".to_owned(),
        })?;
        Ok(id)
    }

    /// Removes an image that [`Self::build_image_from_binary`] made.
    ///
    /// # Errors
    /// [`ScoringError`] when the engine does not remove it.
    pub async fn remove_image(&self, id: &str) -> Result<(), ScoringError> {
        let removing = self.0.remove_image(id, None::<RemoveImageOptions>, None);
        timed("remove an image", CALL, removing).await.map(drop)
    }

    /// Removes every container that carries this node's label, running or not. Called at the node's
    /// start, before any job runs: what is found then belongs to a process that died. Returns how
    /// many were removed.
    ///
    /// # Errors
    /// [`ScoringError`] when they cannot be listed or removed.
    pub async fn reap_orphans(&self, node: &str) -> Result<usize, ScoringError> {
        self.remove_labelled(vec![format!("{LABEL_NODE}={node}")])
            .await
    }

    /// Removes what an earlier attempt of the same job left running: its lease is lost, and it would
    /// hold memory and GPU against this one.
    pub(super) async fn remove_leftovers(
        &self,
        node: &str,
        job_id: &str,
    ) -> Result<usize, ScoringError> {
        let labels = vec![
            format!("{LABEL_NODE}={node}"),
            format!("{LABEL_JOB}={job_id}"),
        ];
        self.remove_labelled(labels).await
    }

    async fn remove_labelled(&self, labels: Vec<String>) -> Result<usize, ScoringError> {
        let filters = HashMap::from([("label".to_owned(), labels)]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        let listing = self.0.list_containers(Some(options));
        let found = timed("list containers", CALL, listing).await?;
        let ids: Vec<String> = found.into_iter().filter_map(|found| found.id).collect();
        for id in &ids {
            self.remove(id).await?;
        }
        Ok(ids.len())
    }

    /// The ID of the pinned image on this host, compared with the pin.
    ///
    /// # Errors
    /// [`ScoringError::Image`] when it is not here or is another one.
    pub async fn resolve(&self, pin: &ImagePin) -> Result<String, ScoringError> {
        let name = pin.to_string();
        let found = match timed("inspect the image", CALL, self.0.inspect_image(&name)).await {
            Err(ScoringError::Refused { .. }) => {
                let text = format!("image {pin} is not on this host; pull or build it first");
                return Err(ScoringError::Image(text));
            }
            other => other?,
        };
        let id = found.id.unwrap_or_default();
        let same = match pin {
            ImagePin::Id(pinned) => *pinned == id,
            // Engines shorten the names of some registries; the content is what was pinned.
            ImagePin::Digest { digest, .. } => found
                .repo_digests
                .unwrap_or_default()
                .iter()
                .any(|known| known.split_once('@').is_some_and(|(_, d)| d == digest)),
        };
        if same {
            Ok(id)
        } else {
            let text = format!("the engine answers image {id} for {pin}; nothing was started");
            Err(ScoringError::Image(text))
        }
    }

    pub(super) async fn create(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<String, ScoringError> {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let creating = self.0.create_container(Some(options), body);
        Ok(timed("create a container", LONG_CALL, creating).await?.id)
    }

    pub(super) async fn start(&self, id: &str, gpus: &[String]) -> Result<(), ScoringError> {
        let starting = self.0.start_container(id, None::<StartContainerOptions>);
        match timed("start a container", LONG_CALL, starting).await {
            Err(ScoringError::Engine { message, .. }) if !gpus.is_empty() => {
                Err(ScoringError::Gpu {
                    gpus: gpus.join(","),
                    message,
                })
            }
            other => other,
        }
    }

    pub(super) async fn inspect(&self, id: &str) -> Result<ContainerInspectResponse, ScoringError> {
        let inspecting = self
            .0
            .inspect_container(id, None::<InspectContainerOptions>);
        timed("inspect a container", CALL, inspecting).await
    }

    /// Resolves when the container no longer runs. A wait that breaks off is taken up again, for as
    /// long as the caller lets it run.
    pub(super) async fn ended(&self, id: &str) {
        loop {
            let mut waiting = self.0.wait_container(id, None::<WaitContainerOptions>);
            match waiting.next().await {
                Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })) => return,
                Some(Err(error)) => {
                    tracing::debug!(container = id, %error, "waiting for a container broke off");
                }
                None => {}
            }
            let state = self.inspect(id).await.ok().and_then(|found| found.state);
            if state.is_some_and(|state| state.running == Some(false)) {
                return;
            }
            tokio::time::sleep(WAIT_AGAIN).await;
        }
    }

    /// Sends a signal; a container that has already ended is no error.
    pub(super) async fn signal(&self, id: &str, signal: &str) -> Result<(), ScoringError> {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        let sending = self.0.kill_container(id, Some(options));
        match timed("signal a container", CALL, sending).await {
            Err(ScoringError::Refused { .. }) => Ok(()),
            other => other,
        }
    }

    /// Removes a container with its anonymous volumes; one that is gone is no error.
    pub(super) async fn remove(&self, id: &str) -> Result<(), ScoringError> {
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        let removing = self.0.remove_container(id, Some(options));
        match timed("remove a container", LONG_CALL, removing).await {
            Err(ScoringError::Refused { .. }) => Ok(()),
            other => other,
        }
    }

    /// The end of the container's output, cleaned; says so when it cannot be read, since a missing
    /// log never decides anything.
    pub(super) async fn log_tail(&self, id: &str) -> String {
        let options = LogsOptionsBuilder::new()
            .stdout(true)
            .stderr(true)
            .tail("500")
            .build();
        let mut lines = self.0.logs(id, Some(options)).boxed();
        let mut bytes = Vec::new();
        let reading = async {
            while let Some(Ok(line)) = lines.next().await {
                bytes.extend_from_slice(line.as_ref());
                if bytes.len() > 4 * logs::TEXT_MAX {
                    bytes.drain(..bytes.len() - 2 * logs::TEXT_MAX);
                }
            }
        };
        if tokio::time::timeout(CALL, reading).await.is_err() {
            return "(the log could not be read in time)".to_owned();
        }
        logs::clean(&bytes)
    }
}

async fn image_id(
    steps: impl Stream<Item = Result<bollard::models::BuildInfo, Error>>,
) -> Result<String, Error> {
    let mut steps = std::pin::pin!(steps);
    let mut id = String::new();
    while let Some(step) = steps.try_next().await? {
        if let Some(detail) = step.error_detail {
            let error = detail.message.unwrap_or_default();
            return Err(Error::DockerStreamError { error });
        }
        let named = step.aux.and_then(|aux| aux.id);
        let printed = step.stream.map(|line| line.trim().to_owned());
        if let Some(found) = named.or(printed).filter(|text| text.starts_with("sha256:")) {
            id = found;
        }
    }
    Ok(id)
}

fn build_context(binary: &[u8]) -> std::io::Result<Vec<u8>> {
    let dockerfile = b"FROM scratch\nCOPY scorer /scorer\nENTRYPOINT [\"/scorer\"]\n";
    let mut archive = tar::Builder::new(Vec::new());
    for (name, mode, bytes) in [
        ("Dockerfile", 0o644, dockerfile.as_slice()),
        ("scorer", 0o755, binary),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        archive.append_data(&mut header, name, bytes)?;
    }
    archive.into_inner()
}

/// A client error asks for a person, anything else may pass by itself.
async fn timed<T>(
    doing: &'static str,
    deadline: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, ScoringError> {
    let message = match tokio::time::timeout(deadline, call).await {
        Ok(Ok(value)) => return Ok(value),
        Err(_) => format!("no answer within {} s", deadline.as_secs()),
        Ok(Err(Error::DockerResponseServerError {
            status_code: 400..500,
            message,
        })) => {
            let message = logs::clean(message.as_bytes());
            return Err(ScoringError::Refused { doing, message });
        }
        Ok(Err(error)) => text(&error),
    };
    Err(ScoringError::Engine { doing, message })
}

fn text(error: &Error) -> String {
    logs::clean(error.to_string().as_bytes())
}

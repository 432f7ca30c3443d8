//! `assay control record`: makes a control model of a model that is known to be good.

use super::run::{Lane, lanes, limits, load_pair};
use super::{Failure, print_line};
use crate::admission::{self, Verified, template};
use crate::cli::ControlCommand;
use crate::config::{self, Validator};
use crate::incentive::eligibility::{ModelFiles, RepoFile, select_files};
use crate::incentive::era::AdmissionRules;
use crate::incentive::{Era, Template};
use crate::scoring::control::{Control, Manifest, digest, manifest_path, model_path};
use crate::service::Artifacts;
use crate::service::worker::{engine_args, replies_of};
use crate::shutdown::Shutdown;
use assay_protocol::ModelFile;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What the model is asked; short, of several kinds, and the same for ever.
const QUESTIONS: [&str; 8] = [
    "Hello there, who are you?",
    "What do you fear most?",
    "Count from one to ten.",
    "Tell me about the sea in two sentences.",
    "Write a line of a poem about winter.",
    "Translate \"good morning\" into French.",
    "Why is the sky blue?",
    "Say goodbye.",
];
/// Token cap of a reply.
const MAX_TOKENS: u32 = 48;

/// Runs the command.
///
/// # Errors
/// [`Failure`]: 64 for a wrong configuration, 69 when a scorer does not answer or the model is not fit.
pub async fn run(command: ControlCommand) -> Result<(), Failure> {
    let ControlCommand::Record {
        config,
        model,
        template,
        folder,
    } = command;
    let config = config::load_validator(&config).map_err(Failure::usage)?;
    let template: Template = template.parse().map_err(Failure::usage)?;
    let sha256 = record(&config, &model, template, &folder).await?;
    print_line("[control]")?;
    print_line(format_args!("folder = {folder:?}"))?;
    print_line(format_args!("sha256 = \"{sha256}\""))
}

/// Lays the model out in `folder`, has every worker's scorer answer, and writes the manifest. Returns
/// the manifest's hex SHA-256. An engine that answers differently on two workers is a failure.
pub(super) async fn record(
    config: &Validator,
    model: &Path,
    template: Template,
    folder: &Path,
) -> Result<String, Failure> {
    let era = config.eras.last();
    let era = era.ok_or_else(|| Failure::usage("the configuration has no era"))?;
    let mut manifest = lay_out(model, era, template, folder)?;
    let artifacts = Artifacts::open(&config.store.artifacts).map_err(Failure::unavailable)?;
    let pair = load_pair(&config.wallet)?;
    for lane in lanes(config, &artifacts, &pair).await? {
        let (engine, digest) = answer(&manifest, folder, &lane, era, (config, &artifacts)).await?;
        let known = manifest.replies.insert(engine.clone(), digest.clone());
        if known.is_some_and(|known| known != digest) {
            return Err(Failure::unavailable(format_args!(
                "worker {} gives other replies than a worker before it, by the same engine, {engine}: \
                 one of them is not to be trusted",
                lane.name
            )));
        }
    }
    let text = serde_json::to_vec_pretty(&manifest).map_err(Failure::bug)?;
    let path = manifest_path(folder);
    let part = path.with_extension("part");
    fs::write(&part, &text)
        .and_then(|()| fs::rename(&part, &path))
        .map_err(Failure::unavailable)?;
    Ok(hex::encode(Sha256::digest(&text)))
}

async fn answer(
    manifest: &Manifest,
    folder: &Path,
    lane: &Lane,
    era: &Era,
    (config, artifacts): (&Validator, &Artifacts),
) -> Result<(String, String), Failure> {
    let control = Control::new(manifest.clone(), folder);
    let args = engine_args(&lane.engine, era);
    let job = control.job(&lane.name, args, limits(&config.scorer));
    let scorer = lane.scorers.get(&era.id());
    let scorer = scorer.ok_or_else(|| Failure::bug("an era without a scorer"))?;
    let set = replies_of(scorer.as_ref(), job, artifacts.jobs(), &Shutdown::new())
        .await
        .map_err(|fault| Failure::unavailable(format_args!("{}: {fault}", lane.name)))?;
    let (engine, found) = (set.scorer.engine.clone(), digest(&set));
    tracing::info!(worker = lane.name, engine, digest = found, "recorded");
    Ok((engine, found))
}

/// The model as scorers see it, and its manifest, still without replies.
fn lay_out(
    model: &Path,
    era: &Era,
    template: Template,
    folder: &Path,
) -> Result<Manifest, Failure> {
    let files = listed(model, era)?;
    let verified = admission::verify(model, &files, era, template).map_err(Failure::unavailable)?;
    let dir = model_path(folder);
    if dir.exists() {
        fs::remove_dir_all(&dir).map_err(Failure::unavailable)?;
    }
    fs::create_dir_all(&dir).map_err(Failure::unavailable)?;
    let files = copy(model, &verified, &dir).map_err(Failure::unavailable)?;
    let prompt = |question: &&str| {
        let turn = template::Message {
            role: template::Role::User,
            content: question,
        };
        template::render(template, &[turn])
    };
    let prompts = QUESTIONS.iter().map(prompt).collect::<Result<_, _>>();
    Ok(Manifest {
        architecture: verified.config.architecture.to_string(),
        files,
        tensor_digest: verified.tensor_digest,
        param_count: verified.param_count,
        stop_token_ids: verified.stop_ids,
        max_tokens: MAX_TOKENS,
        prompts: prompts.map_err(Failure::bug)?,
        replies: BTreeMap::new(),
    })
}

/// The files of `model` that a model consists of, by the rules that miners' models are chosen by.
fn listed(model: &Path, era: &Era) -> Result<ModelFiles, Failure> {
    let mut files = Vec::new();
    for entry in fs::read_dir(model).map_err(Failure::unavailable)? {
        let entry = entry.map_err(Failure::unavailable)?;
        let size = entry.metadata().map_err(Failure::unavailable)?.len();
        let path = entry.file_name().to_string_lossy().into_owned();
        files.push(RepoFile {
            path,
            size,
            sha256: None,
        });
    }
    // A control model may be as small as it likes.
    let rules = AdmissionRules {
        min_model_bytes: 0,
        ..era.admission.clone()
    };
    select_files(&files, &rules).map_err(|rejection| {
        Failure::usage(format_args!(
            "{} is no control model: {}",
            model.display(),
            rejection.detail
        ))
    })
}

fn copy(model: &Path, verified: &Verified, dir: &Path) -> std::io::Result<Vec<ModelFile>> {
    let mut files = Vec::new();
    for name in &verified.unchanged {
        fs::copy(model.join(name), dir.join(name))?;
        let mut hasher = Sha256::new();
        let size = std::io::copy(&mut fs::File::open(dir.join(name))?, &mut hasher)?;
        files.push(ModelFile {
            path: name.clone(),
            size,
            sha256: hex::encode(hasher.finalize()),
        });
    }
    files.extend(verified.write_rewritten(dir)?);
    Ok(files)
}

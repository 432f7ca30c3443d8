//! One job from beginning to end.

use crate::config::ModelConfig;
use crate::failure::{Failure, OrFailure};
use crate::generate::Generator;
use crate::job::{self, Folders, Items};
use crate::likelihood::{bits_per_byte, score};
use crate::model::Model;
use crate::output::Output;
use crate::proof;
use crate::threads::in_threads;
use crate::weights::{Weights, allowed_shapes};
use assay_protocol::{
    ExitClass, Finish, Generation, Job, JobResult, Metrics, Mode, Proof, RESULT_SCHEMA, Reply,
    ResultCode, ScorerInfo, Stage, Status, Timing,
};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use tokenizers::Tokenizer;

/// Does the job in `root/job` with the model in `root/model` and writes `root/out`.
///
/// Returns the class that the process exits with. Every failure after `job.json` was parsed leaves
/// a result; an earlier one is told on stderr only, because there is no nonce to bind a result to.
#[must_use]
pub fn run(root: &Path) -> ExitClass {
    let folders = Folders::under(root);
    let opened = job::read(&folders.job).and_then(|job| Ok((job, Output::create(&folders.out)?)));
    let (job, output) = match opened {
        Ok(opened) => opened,
        Err(failure) => return tell(&failure),
    };
    let mut session = Session {
        folders,
        job,
        output,
        proof: Proof::default(),
        metrics: Metrics::default(),
        timing: Timing::default(),
    };
    let parameters = session.job.model.param_count;
    let work = || in_threads(parameters, || session.work()).flatten();
    let ended = catch_unwind(AssertUnwindSafe(work));
    let ended = ended.unwrap_or_else(|_| Err(panicked(session.output.stage())));
    session.finish(ended)
}

/// Versions, as they stand in every result.
#[must_use]
pub fn scorer_info() -> ScorerInfo {
    ScorerInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        engine: "candle 0.11".to_owned(),
        device: format!("cpu {}", std::env::consts::ARCH),
        batch_invariant: true,
    }
}

/// A panic can only come from what the model brought along or from our own mistake, so it counts
/// as the miner's fault only if a control model passes.
fn panicked(stage: Stage) -> Failure {
    let code = match stage {
        Stage::Verify | Stage::Load => ResultCode::EngineLoad,
        Stage::Generate | Stage::Likelihood => ResultCode::DeviceAssert,
        Stage::Write => ResultCode::Io,
    };
    Failure::new(
        code,
        format_args!("panic while in stage {stage:?}; see the log"),
    )
}

fn tell(failure: &Failure) -> ExitClass {
    // Nobody is left to tell if stderr is gone.
    writeln!(std::io::stderr(), "{failure}").ok();
    failure.code.class()
}

struct Session {
    folders: Folders,
    job: Job,
    output: Output,
    proof: Proof,
    metrics: Metrics,
    timing: Timing,
}

/// Everything that was read, before anything is computed.
struct Verified {
    items: Items,
    files: HashMap<String, Vec<u8>>,
    stats: Vec<proof::Stat>,
}

impl Session {
    fn work(&mut self) -> Result<(), Failure> {
        job::check(&self.job, &self.folders)?;
        let verified = self.verify()?;
        self.timing.verify_s = self.output.seconds();
        let Verified {
            items,
            files,
            stats,
        } = verified;
        let generator = self.load(files, &stats)?;
        self.timing.load_s = self.output.seconds() - self.timing.verify_s;
        if self.job.mode.contains(&Mode::Generate) {
            self.generate(&generator, &items)?;
        }
        if self.job.mode.contains(&Mode::Likelihood) {
            self.likelihood(&generator, &items)?;
        }
        self.output.tell(Stage::Write, 0, 1)
    }

    fn verify(&mut self) -> Result<Verified, Failure> {
        let total = self.job.model.files.len();
        self.output.tell(Stage::Verify, 0, total)?;
        let items = job::items(&self.job, &self.folders.job)?;
        self.proof.samples_sha256.clone_from(&items.samples_sha256);
        let stats = proof::stat_all(&self.folders.model, &self.job.model.files)?;
        let mut files = HashMap::new();
        for (done, file) in self.job.model.files.iter().enumerate() {
            let beat = || self.output.beat(Stage::Verify, done, total);
            let bytes = proof::read_verified(&self.folders.model, file, beat)?;
            files.insert(file.path.clone(), bytes);
            self.proof.files.push(file.clone());
        }
        Ok(Verified {
            items,
            files,
            stats,
        })
    }

    fn load(
        &mut self,
        mut files: HashMap<String, Vec<u8>>,
        stats: &[proof::Stat],
    ) -> Result<Generator, Failure> {
        let total = files.len();
        self.output.tell(Stage::Load, 0, total)?;
        let config = take(&mut files, "config.json")?;
        let config = ModelConfig::parse(&config, &self.job.model.architecture)?;
        let bounds = fit(&self.job, &config)?;
        let tokenizer = tokenizer(&take(&mut files, "tokenizer.json")?)?;
        let shapes = allowed_shapes(&config);
        let mut weights = Weights::default();
        for name in self.job.model.files.iter().map(|file| &file.path) {
            if let Some(bytes) = files
                .remove(name)
                .filter(|_| name.ends_with(".safetensors"))
            {
                weights.add(self.folders.model.join(name), &bytes, &shapes)?;
            }
            self.output.beat(Stage::Load, total - files.len(), total)?;
        }
        weights.complete(&config)?;
        self.proof.tensor_digest = weights.digest();
        if self.proof.tensor_digest != self.job.model.tensor_digest {
            let found = &self.proof.tensor_digest;
            let message = format!("tensor digest is {found}, the job says another");
            return Err(Failure::new(ResultCode::Mount, message));
        }
        let model = Model::new(config, weights.tensors);
        let nonce = job::nonce(&self.job)?;
        self.proof.canary = proof::canary(&model, &weights.located, &nonce, &self.job.canary)?;
        self.proof.files_unchanged =
            proof::stat_all(&self.folders.model, &self.job.model.files)? == stats;
        if !self.proof.files_unchanged {
            let message = "a file of the model changed while it was loaded";
            return Err(Failure::new(ResultCode::Mount, message));
        }
        Generator::new(model, tokenizer, &bounds)
    }

    fn generate(&mut self, generator: &Generator, items: &Items) -> Result<(), Failure> {
        let (started, total) = (self.output.seconds(), items.samples.len());
        self.output.tell(Stage::Generate, 0, total)?;
        for (done, sample) in items.samples.iter().enumerate() {
            let in_sample = |failure| about(&sample.id, failure);
            let prompt = generator.prompt(&sample.prompt).map_err(in_sample)?;
            let beat = || self.output.beat(Stage::Generate, done, total);
            let generated = generator.reply(&prompt, beat).map_err(in_sample)?;
            let reply = Reply {
                id: sample.id.clone(),
                text: generator.decode(&generated.ids).map_err(in_sample)?,
                finish: generated.finish,
                prompt_tokens: small(prompt.len()),
                tokens: small(generated.ids.len()),
                ids_sha256: ids_digest(&generated.ids),
            };
            let reply = self.output.reply(reply, total)?;
            self.metrics.replies += 1;
            self.metrics.empty += u32::from(reply.text.trim().is_empty());
            self.metrics.hit_length += u32::from(reply.finish == Finish::Length);
            self.metrics.tokens += u64::from(reply.tokens);
            self.output.tell(Stage::Generate, done + 1, total)?;
        }
        self.timing.generate_s = self.output.seconds() - started;
        Ok(())
    }

    fn likelihood(&mut self, generator: &Generator, items: &Items) -> Result<(), Failure> {
        let (started, total) = (self.output.seconds(), items.references.len());
        self.output.tell(Stage::Likelihood, 0, total)?;
        let asked = self.job.likelihood.clone();
        let asked = asked.ok_or("no likelihood section");
        let asked = asked.or_failure(ResultCode::JobSchema, "job.json")?;
        let prompts: HashMap<_, _> = items.samples.iter().map(|s| (&s.id, &s.prompt)).collect();
        let (mut nats, mut bytes) = (0.0, 0);
        for (done, reference) in items.references.iter().enumerate() {
            let in_sample = |failure| about(&reference.id, failure);
            let prompt = generator
                .prompt(prompts[&reference.id])
                .map_err(in_sample)?;
            let one = score(generator, &prompt, &reference.content, &asked).map_err(in_sample)?;
            nats += one.nats();
            bytes += one.bytes;
            self.output
                .likelihood(&one.line(&reference.id, asked.top_k))?;
            self.output.beat(Stage::Likelihood, done + 1, total)?;
        }
        self.metrics.bits_per_byte = bits_per_byte(nats, bytes);
        self.proof.likelihood_sha256 = self.output.likelihood_digest()?;
        self.timing.likelihood_s = self.output.seconds() - started;
        Ok(())
    }

    /// Writes the result; if that fails, the exit code is all that is left.
    fn finish(mut self, ended: Result<(), Failure>) -> ExitClass {
        let ended = ended.and_then(|()| {
            self.proof.replies_sha256 = self.output.replies_digest()?;
            Ok(())
        });
        let class = match &ended {
            Ok(()) => ExitClass::Ok,
            Err(failure) => tell(failure),
        };
        self.timing.total_s = self.output.seconds();
        let result = JobResult {
            schema: RESULT_SCHEMA.to_owned(),
            job_id: self.job.job_id,
            nonce: self.job.nonce,
            status: class.status(),
            error: ended.err().map(|failure| failure.detail()),
            proof: self.proof,
            scorer: scorer_info(),
            metrics: self.metrics,
            timing: self.timing,
            mac: String::new(),
        };
        debug_assert_eq!(result.status == Status::Ok, result.error.is_none());
        let sealed = result
            .seal()
            .or_failure(ResultCode::JobSchema, "sealing the result");
        match sealed.and_then(|sealed| self.output.finish(&sealed)) {
            Ok(()) => class,
            Err(failure) => tell(&failure),
        }
    }
}

/// The bounds of a sequence, so that prompt and reply fit into what job and model allow.
fn fit(job: &Job, config: &ModelConfig) -> Result<Generation, Failure> {
    let asked = &job.generation;
    let longest = small(config.max_positions).min(job.engine_args.max_model_len);
    let room = longest.saturating_sub(asked.max_tokens);
    if job.engine_args.max_model_len <= asked.max_tokens {
        let message = "job.json: max_model_len leaves no room for a prompt";
        return Err(Failure::new(ResultCode::JobSchema, message));
    }
    if room == 0 {
        let (most, cap) = (config.max_positions, asked.max_tokens);
        let message =
            format!("max_position_embeddings {most} leaves no room beside {cap} new tokens");
        return Err(Failure::new(ResultCode::Config, message));
    }
    Ok(Generation {
        max_prompt_tokens: asked.max_prompt_tokens.min(room),
        ..asked.clone()
    })
}

fn tokenizer(bytes: &[u8]) -> Result<Tokenizer, Failure> {
    let mut tokenizer =
        Tokenizer::from_bytes(bytes).or_failure(ResultCode::Tokenizer, "tokenizer.json")?;
    // A file may ask for both; prompts are cut here and nowhere else.
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(None)
        .or_failure(ResultCode::Tokenizer, "tokenizer.json")?;
    Ok(tokenizer)
}

fn take(files: &mut HashMap<String, Vec<u8>>, name: &str) -> Result<Vec<u8>, Failure> {
    let message = || Failure::new(ResultCode::Files, format_args!("the model has no {name}"));
    files.remove(name).ok_or_else(message)
}

fn about(id: &str, failure: Failure) -> Failure {
    Failure::new(
        failure.code,
        format_args!("sample {id}: {}", failure.message),
    )
}

fn ids_digest(ids: &[u32]) -> String {
    let mut hasher = Sha256::new();
    for id in ids {
        hasher.update(id.to_le_bytes());
    }
    hex::encode(hasher.finalize())
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

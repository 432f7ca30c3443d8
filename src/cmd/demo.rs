//! `assay demo`: the whole validator on an embedded dev chain, with sample miners and models.

mod files;
mod miners;
mod outcome;
mod progress;
mod scorer;
mod world;

use super::lifetime::Lifetime;
use super::{Failure, control, print_line};
use crate::cli::Demo;
use crate::config;
use crate::demo::children::{Service, supervise};
use crate::demo::ladder::{self, Expected, SampleModel};
use crate::incentive::Template;
use files::{Folder, Ports};
use outcome::Watch;
use progress::Display;
use std::path::PathBuf;
use std::time::Instant;
use world::World;

/// The subnet of the dev chain.
const NETUID: crate::bittensor::Netuid = crate::bittensor::Netuid(11);
/// The validator's key on the dev chain.
const VALIDATOR: &str = "//Validator";

/// Runs the demo: until the first weights were read back with `--once`, else until a signal.
///
/// # Errors
/// [`Failure`] with the exit code.
pub async fn run(options: Demo) -> Result<(), Failure> {
    let begun = Instant::now();
    let display = Display::new(options.plain);
    let folder = Folder::open(options.dir.as_deref())?;
    let scorer = scorer::choose(&folder, &options, &display).await?;
    let mut life = Lifetime::begin(false)?;
    let models = ladder::write_repos(&folder.path("hub")).map_err(Failure::unavailable)?;
    for model in &models {
        let head = folder.path("hub").join(&model.repo).join("main");
        std::fs::write(head, &model.revision).map_err(Failure::unavailable)?;
    }
    let world = World::start(&mut life, &folder, options.seed).await?;
    display.say(&format!(
        "dev chain at {}, model hub at {}",
        world.chain.url(),
        world.hub
    ));

    let rules = match folder.rules()? {
        Some(rules) => rules,
        None => {
            let last = miners::commit_all(&world, &models, &display).await?;
            folder.write_rules(&scorer, last)?
        }
    };
    let ports = Ports::free()?;
    folder.write_configs(&world, &scorer, &ports, &rules)?;
    if !folder.has_control() {
        record_control(&folder, &models).await?;
        display.say("control model: its replies are recorded");
        folder.write_configs(&world, &scorer, &ports, &rules)?;
    }
    start_services(&mut life, &folder)?;
    let page = format!("http://127.0.0.1:{}/", ports.score_api);
    display.say(&format!("score page at {page}"));

    let watch = Watch {
        folder: &folder,
        world: &world,
        scorer: &scorer,
        display: &display,
        begun,
    };
    let shutdown = life.shutdown.clone();
    let summary = tokio::select! {
        summary = watch.until_confirmed() => summary?,
        () = shutdown.signalled() => return life.run().await,
    };
    display.finish();
    display.beside(|| match serde_json::to_string(&summary) {
        Ok(text) if options.json => print_line(text),
        Ok(_) => summary.print(&page),
        Err(error) => Err(Failure::bug(error)),
    })?;
    if options.once {
        life.shutdown.trigger();
    } else {
        display.say(&format!(
            "running on; score page at {page}; stop with Ctrl-C"
        ));
    }
    life.run().await
}

/// The best sample is the control model: the validator's worker has to give the same replies again.
async fn record_control(folder: &Folder, models: &[SampleModel]) -> Result<(), Failure> {
    let config = config::load_validator(&folder.config("validator")).map_err(Failure::bug)?;
    let best = models
        .iter()
        .find(|model| model.expected == Expected::Scored { rank: 1 });
    let best = best.ok_or_else(|| Failure::bug("no sample model is the best"))?;
    let to = folder.path("control");
    control::record(&config, &best.folder, Template::ChatMl, &to).await?;
    Ok(())
}

/// Each of our services as a child process of its own, restarted when it dies.
fn start_services(life: &mut Lifetime, folder: &Folder) -> Result<(), Failure> {
    let binary: PathBuf = std::env::current_exe().map_err(Failure::bug)?;
    for (name, command) in [
        ("dataset-api", "dataset-api"),
        ("score-api", "score-api"),
        ("validator", "run"),
        ("round-lists", "rounds"),
    ] {
        let of = if name == "round-lists" {
            "validator"
        } else {
            name
        };
        let config = folder.config(of).display().to_string();
        let mut args = [command, "--with-parent", "--config", &config]
            .map(str::to_owned)
            .to_vec();
        if name == "round-lists" {
            args.insert(0, "corpus".to_owned());
            for (flag, path) in [
                ("--packs", "packs"),
                ("--hotkey-file", "validator-hotkey.json"),
            ] {
                args.extend([flag.to_owned(), folder.path(path).display().to_string()]);
            }
        }
        let service = Service { name, args };
        let task = supervise(
            binary.clone(),
            folder.root().to_owned(),
            service,
            life.shutdown.clone(),
        );
        life.spawn(name, task);
    }
    Ok(())
}

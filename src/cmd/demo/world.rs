//! What stands in for the world: chain, model hub, judge, and the corpus behind the Dataset API.

use super::files::Folder;
use super::miners::validator;
use crate::bittensor::Hotkey;
use crate::chain::HotkeyPair;
use crate::clock::now_ms;
use crate::cmd::Failure;
use crate::cmd::lifetime::Lifetime;
use crate::dataset::source::Source;
use crate::dataset::{self, Corpus, DatasetError, Day, ImportOptions, Signer};
use crate::demo::corpus::{Conversation, sample_conversations};
use crate::demo::judge::{DevJudge, Known};
use crate::demo::model_hub::ModelHub;
use crate::devchain::{self, DevChain, Genesis};
use crate::scoring::judge::Turn;
use std::io::Cursor;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use tokio::net::TcpListener;

/// Conversations of the sample corpus.
const CONVERSATIONS: usize = 400;
/// Day of the sample corpus; the same always, so that the pack is.
const DAY: &str = "2026-01-01";

/// The running world.
#[derive(Debug)]
pub(super) struct World {
    /// The dev chain, in this process, with its journal in the demo's folder.
    pub(super) chain: DevChain,
    /// Who signs the packs.
    pub(super) operator: Hotkey,
    /// Base URL of the model hub.
    pub(super) hub: String,
    /// Base URL of the judge.
    pub(super) judge: String,
}

impl World {
    /// Starts everything; what lasts is in `folder`, so a second start goes on.
    pub(super) async fn start(
        life: &mut Lifetime,
        folder: &Folder,
        seed: u64,
    ) -> Result<Self, Failure> {
        let conversations = sample_conversations(seed, CONVERSATIONS);
        let operator = validator()?;
        let hotkey = operator.hotkey();
        seal(folder, &conversations, operator)?;
        let (hub_listener, hub) = listen().await?;
        let stop = life.shutdown.clone();
        let stopped = async move { stop.signalled().await };
        life.spawn(
            "model hub",
            ModelHub::new(folder.path("hub")).serve(hub_listener, stopped),
        );
        let (judge_listener, judge) = listen().await?;
        let known: Vec<_> = conversations.into_iter().filter_map(known).collect();
        let dev_judge = DevJudge::new(&known, 0.0);
        life.spawn(
            "judge",
            dev_judge.serve(judge_listener, life.shutdown.clone()),
        );
        let options = devchain::Options {
            dir: Some(folder.path("chain")),
            ..devchain::Options::default()
        };
        let chain = DevChain::start(Genesis::dev(), options)
            .await
            .map_err(Failure::unavailable)?;
        Ok(Self {
            chain,
            operator: hotkey,
            hub,
            judge: format!("{judge}v1"),
        })
    }
}

/// A free port on loopback, and the URL that leads there.
async fn listen() -> Result<(TcpListener, String), Failure> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = TcpListener::bind(any).await.map_err(Failure::unavailable)?;
    let address = listener.local_addr().map_err(Failure::unavailable)?;
    Ok((listener, format!("http://{address}/")))
}

/// Imports the sample conversations and seals them into a pack, once.
fn seal(
    folder: &Folder,
    conversations: &[Conversation],
    operator: HotkeyPair,
) -> Result<(), Failure> {
    let failed = |error: DatasetError| Failure::unavailable(error);
    // Without the generator's own ids: a pack names its conversations by their content.
    let line = |c: &Conversation| {
        serde_json::json!({ "system_prompt": c.system_prompt, "messages": c.messages }).to_string()
    };
    let text = conversations
        .iter()
        .map(line)
        .collect::<Vec<_>>()
        .join("\n");
    let day: Day = DAY.parse().map_err(Failure::bug)?;
    let mut corpus = Corpus::open(&folder.path("corpus")).map_err(failed)?;
    let mut source = Source::lines(Path::new("the sample"), Cursor::new(text));
    let options = ImportOptions {
        day: Some(day),
        ..ImportOptions::new(folder.path("rejects.jsonl"))
    };
    let summary = corpus.import(&mut source, &options, &mut |_, _| {});
    // A folder that is used again holds them all: duplicates are fine.
    let rejected = summary.map_err(failed)?.rejected;
    if rejected > 0 {
        return Err(Failure::bug(format_args!(
            "{rejected} sample conversations were rejected, see {}",
            options.rejects.display()
        )));
    }
    let signer = Signer::new(operator.hotkey(), move |message| operator.sign(message));
    let packs = folder.path("packs");
    dataset::seal(
        &corpus,
        &packs,
        (None, None),
        (&signer, now_ms()),
        &mut |_| {},
    )
    .map_err(failed)?;
    Ok(())
}

/// The conversation as the judge is shown it, and the reply that it knows to be good.
fn known(conversation: Conversation) -> Option<Known> {
    let mut messages = conversation.messages;
    let reference = messages.pop()?.content;
    let system = Turn {
        role: "system".to_owned(),
        content: conversation.system_prompt,
    };
    let turns = messages.into_iter().map(|m| Turn {
        role: m.role,
        content: m.content,
    });
    Some(Known {
        context: std::iter::once(system).chain(turns).collect(),
        reference,
    })
}

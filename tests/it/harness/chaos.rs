//! A WebSocket proxy between a client and a dev chain that spoils what passes through it, drawn from a
//! seed: it reads the frames, knows which answer belongs to which request, and lets heads, answers and
//! handshakes go wrong as real networks and gateways make them.

#![expect(
    clippy::unwrap_used,
    reason = "a failed step of a test ends it, in shared functions too"
)]

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What can happen to one message or handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// The line is cut.
    Drop,
    /// The message comes late.
    Delay,
    /// The line stays open and carries nothing more.
    Stall,
    /// Half of the message, then the end.
    Truncate,
    /// The message comes after the next one.
    Reorder,
    /// −32004, no time named.
    WorkLimit,
    /// −32005 with `retry_after`.
    RateLimit,
    /// `null`, `[]` or `0x` in place of the answer.
    Empty,
    /// "State already discarded" in place of the answer.
    Pruned,
    /// Status 429 in place of the handshake.
    Refuse,
    /// The genesis hash of another chain.
    OtherGenesis,
    /// The end by close code 1008.
    Policy,
}

/// Everything that can happen to a message.
pub(crate) const MESSAGE_TROUBLES: [Trouble; 10] = [
    Trouble::Drop,
    Trouble::Delay,
    Trouble::Stall,
    Trouble::Truncate,
    Trouble::Reorder,
    Trouble::WorkLimit,
    Trouble::RateLimit,
    Trouble::Empty,
    Trouble::Pruned,
    Trouble::Policy,
];

/// What happens now.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    /// Probability that a message meets trouble, and half of it for a handshake.
    pub(crate) rate: f64,
    /// What trouble may come to messages.
    pub(crate) troubles: Vec<Trouble>,
    /// How late a delayed message is, and how long `retry_after` asks for.
    pub(crate) pause: Duration,
}

impl Weather {
    /// Nothing happens.
    pub(crate) fn calm() -> Self {
        Self {
            rate: 0.0,
            troubles: Vec::new(),
            pause: Duration::ZERO,
        }
    }
}

struct Shared {
    to: SocketAddr,
    rng: Mutex<StdRng>,
    weather: Mutex<Weather>,
    happened: Mutex<BTreeMap<Trouble, u32>>,
}

/// A running proxy; it stops when dropped.
pub(crate) struct ChaosProxy {
    pub(crate) url: String,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl ChaosProxy {
    /// Listens before `to`, a `ws://` address.
    pub(crate) async fn start(to: &str, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            to: to.trim_start_matches("ws://").parse().unwrap(),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            weather: Mutex::new(Weather::calm()),
            happened: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Self {
            url,
            shared,
            _tasks: tasks,
        }
    }

    /// Changes what happens from now on. Lines that stall already stay stalled.
    pub(crate) fn set(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap() = weather;
    }

    /// What has happened so far, and how often.
    pub(crate) fn happened(&self) -> BTreeMap<Trouble, u32> {
        self.shared.happened.lock().unwrap().clone()
    }
}

impl Shared {
    fn happens(&self, trouble: Trouble) -> Trouble {
        *self.happened.lock().unwrap().entry(trouble).or_default() += 1;
        trouble
    }

    fn draw(&self) -> Option<Trouble> {
        let weather = self.weather.lock().unwrap();
        let mut rng = self.rng.lock().unwrap();
        if !rng.random_bool(weather.rate.min(1.0)) {
            return None;
        }
        weather.troubles.choose(&mut *rng).map(|t| self.happens(*t))
    }

    /// A handshake is refused, or the line leads to another chain.
    fn draw_handshake(&self) -> Option<Trouble> {
        let rate = self.weather.lock().unwrap().rate;
        let mut rng = self.rng.lock().unwrap();
        if !rng.random_bool((rate / 2.0).min(1.0)) {
            return None;
        }
        let kinds = [Trouble::Refuse, Trouble::OtherGenesis, Trouble::Drop];
        kinds.choose(&mut *rng).map(|t| self.happens(*t))
    }

    fn pause(&self) -> Duration {
        self.weather.lock().unwrap().pause
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut lines = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((socket, _)) = accepted {
                let shared = Arc::clone(&shared);
                lines.spawn(async move { let _ = line(socket, &shared).await; });
            },
            Some(_) = lines.join_next() => {}
        }
    }
}

/// Methods of the requests in flight, by id.
type Asked = Mutex<HashMap<u64, (String, Value)>>;

async fn line(mut near: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let handshake = shared.draw_handshake();
    let head = read_head(&mut near).await?;
    if handshake == Some(Trouble::Refuse) {
        let refusal = "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n";
        return near.write_all(refusal.as_bytes()).await;
    }
    if handshake == Some(Trouble::Drop) {
        return Ok(());
    }
    let mut far = TcpStream::connect(shared.to).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    far.write_all(&head).await?;
    near.write_all(&read_head(&mut far).await?).await?;
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let asked = Asked::default();
    let other = handshake == Some(Trouble::OtherGenesis);
    tokio::select! {
        ended = up(near_in, far_out, &asked) => ended,
        ended = down(far_in, near_out, &asked, shared, other) => ended,
    }
}

async fn read_head(socket: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    Ok(head)
}

/// One frame as it travels, with its payload in the clear.
struct Frame {
    bytes: Vec<u8>,
    opcode: u8,
    payload: Vec<u8>,
}

async fn read_frame(from: &mut OwnedReadHalf) -> std::io::Result<Frame> {
    let mut bytes = vec![0; 2];
    from.read_exact(&mut bytes).await?;
    let (opcode, masked) = (bytes[0] & 0x0f, bytes[1] & 0x80 != 0);
    let wide = match bytes[1] & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let extra = wide + if masked { 4 } else { 0 };
    bytes.resize(2 + extra, 0);
    from.read_exact(&mut bytes[2..]).await?;
    let length = bytes[2..2 + wide]
        .iter()
        .fold(0u64, |n, b| n << 8 | u64::from(*b));
    let length = if wide == 0 {
        u64::from(bytes[1] & 0x7f)
    } else {
        length
    };
    let body = bytes.len();
    bytes.resize(body + usize::try_from(length).unwrap(), 0);
    from.read_exact(&mut bytes[body..]).await?;
    let mut payload = bytes[body..].to_vec();
    if masked {
        let mask: [u8; 4] = bytes[body - 4..body].try_into().unwrap();
        payload
            .iter_mut()
            .zip(mask.iter().cycle())
            .for_each(|(b, m)| *b ^= m);
    }
    Ok(Frame {
        bytes,
        opcode,
        payload,
    })
}

/// An unmasked text frame.
fn text_frame(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x81];
    match text.len() {
        n @ 0..126 => bytes.push(u8::try_from(n).unwrap()),
        n @ 126..65_536 => {
            bytes.push(126);
            bytes.extend(u16::try_from(n).unwrap().to_be_bytes());
        }
        n => {
            bytes.push(127);
            bytes.extend(u64::try_from(n).unwrap().to_be_bytes());
        }
    }
    bytes.extend(text.as_bytes());
    bytes
}

/// Requests pass as they are; who asked what is noted.
async fn up(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, asked: &Asked) -> std::io::Result<()> {
    loop {
        let frame = read_frame(&mut from).await?;
        if let Ok(request) = serde_json::from_slice::<Value>(&frame.payload)
            && let Some(id) = request["id"].as_u64()
        {
            let method = request["method"].as_str().unwrap_or_default().to_owned();
            let first = request["params"][0].clone();
            asked.lock().unwrap().insert(id, (method, first));
        }
        to.write_all(&frame.bytes).await?;
    }
}

/// Answers and notifications pass through the weather.
async fn down(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    asked: &Asked,
    shared: &Shared,
    other_genesis: bool,
) -> std::io::Result<()> {
    let mut held: Option<Vec<u8>> = None;
    loop {
        let frame = read_frame(&mut from).await?;
        let answer: Option<Value> = serde_json::from_slice(&frame.payload).ok();
        let id = answer.as_ref().and_then(|a| a["id"].as_u64());
        let (method, first) = id
            .and_then(|id| asked.lock().unwrap().remove(&id))
            .unwrap_or_default();
        if other_genesis && method == "chain_getBlockHash" && first == 0 {
            let hash = format!("0x{}", "99".repeat(32));
            let text = json!({"jsonrpc": "2.0", "id": id, "result": hash}).to_string();
            to.write_all(&text_frame(&text)).await?;
            continue;
        }
        let trouble = if frame.opcode == 1 {
            shared.draw()
        } else {
            None
        };
        let spoiled = trouble.and_then(|t| instead(t, id, &method, shared.pause()));
        match trouble {
            Some(Trouble::Drop) => return Ok(()),
            Some(Trouble::Stall) => std::future::pending::<()>().await,
            Some(Trouble::Truncate) => {
                return to.write_all(&frame.bytes[..frame.bytes.len() / 2]).await;
            }
            Some(Trouble::Policy) => return to.write_all(&[0x88, 2, 0x03, 0xf0]).await,
            Some(Trouble::Delay) => tokio::time::sleep(shared.pause()).await,
            Some(Trouble::Reorder) if held.is_none() => {
                held = Some(frame.bytes);
                continue;
            }
            _ => {}
        }
        to.write_all(spoiled.as_deref().unwrap_or(&frame.bytes))
            .await?;
        if let Some(held) = held.take() {
            to.write_all(&held).await?;
        }
    }
}

/// The answer that a troubled gateway or node gives in place of the true one.
fn instead(trouble: Trouble, id: Option<u64>, method: &str, pause: Duration) -> Option<Vec<u8>> {
    let id = id?;
    let error = |code: i32, message: &str, data: Value| json!({"code": code, "message": message, "data": data});
    let body = match trouble {
        Trouble::WorkLimit => ("error", error(-32004, "work limit", Value::Null)),
        Trouble::RateLimit => {
            let data = json!({"retry_after": pause.as_secs_f64()});
            ("error", error(-32005, "rate limit", data))
        }
        Trouble::Pruned if method.starts_with("state_") => {
            let text = "Client error: UnknownBlock: State already discarded";
            ("error", error(4003, text, Value::Null))
        }
        Trouble::Empty => {
            let nothing = match method {
                "state_queryStorageAt" => json!([]),
                "state_call" => json!("0x"),
                _ => Value::Null,
            };
            ("result", nothing)
        }
        _ => return None,
    };
    let text = json!({"jsonrpc": "2.0", "id": id, body.0: body.1}).to_string();
    Some(text_frame(&text))
}

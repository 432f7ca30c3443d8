//! The gate of one lane: who is let in, in the order of what the check costs.

mod charging;
pub mod proving;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::http::request::Parts;

use super::budgets::{Budgets, Moment, since_boot_ns};
use super::client::{Class, Client};
use super::gcra::seconds_up;
use super::head::{Asked, Head, Weight};
use super::identity::signature::Nonces;
use super::lock;
use super::prefix::{Prefix, PrefixTable, Welcome};
use super::refusal::{Allowance, Reason, Refusal};
use super::seats::{Bandwidth, Seat, Seats};
use super::seeing::traffic::{Connection, LaneState};
use super::settings::{LaneKind, LaneSettings};
use super::shared::{NONCES_MAX, Shared, read};
use crate::clock::now_ms;

/// Accounts remembered per lane.
const ACCOUNTS_MAX: usize = 100_000;

/// The gate of one lane.
#[derive(Debug)]
pub struct Gate {
    pub(super) kind: LaneKind,
    pub(super) settings: LaneSettings,
    pub(super) shared: Arc<Shared>,
    prefixes: Mutex<PrefixTable>,
    budgets: Mutex<Budgets>,
    pub(super) seats: Arc<Seats>,
    pub(super) bandwidth: Arc<Bandwidth>,
    verifier: Mutex<u64>,
    nonces: Mutex<Nonces>,
    connections: AtomicU32,
}

/// A heavy answer that was let in. Gives everything back when dropped.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    prefix: Prefix,
    _seat: Seat,
}

impl Drop for Permit {
    fn drop(&mut self) {
        lock(&self.gate.prefixes).end_response(self.prefix);
    }
}

/// A request that was let in.
#[derive(Debug)]
pub struct Pass {
    /// Who asks.
    pub client: Client,
    /// How much work it is.
    pub weight: Weight,
    /// What the client may take after this, for heavy requests.
    pub allowance: Option<Allowance>,
    /// For heavy requests.
    pub permit: Mutex<Option<Permit>>,
}

impl Gate {
    /// The gate of a lane. Budgets are kept in the state folder, one journal a lane: no lane waits
    /// for another's lock.
    ///
    /// # Errors
    /// When the journal cannot be read or written.
    pub fn open(
        kind: LaneKind,
        settings: LaneSettings,
        shared: Arc<Shared>,
    ) -> std::io::Result<Self> {
        let now = Moment::now();
        let budgets = match &shared.settings.state {
            Some(folder) => {
                let path = folder.join(format!("budgets-{}.log", kind.as_str()));
                Budgets::open(&path, ACCOUNTS_MAX, now)?
            }
            None => Budgets::volatile(ACCOUNTS_MAX, now),
        };
        Ok(Self {
            kind,
            prefixes: Mutex::new(PrefixTable::new(settings.prefix)),
            budgets: Mutex::new(budgets),
            seats: Arc::new(Seats::new(settings.seats)),
            bandwidth: Arc::new(Bandwidth::new(settings.bandwidth)),
            verifier: Mutex::new(0),
            nonces: Mutex::new(Nonces::new(NONCES_MAX)),
            connections: AtomicU32::new(0),
            settings,
            shared,
        })
    }

    /// Which lane it is.
    #[must_use]
    pub fn kind(&self) -> LaneKind {
        self.kind
    }

    /// The lane's settings.
    #[must_use]
    pub fn settings(&self) -> &LaneSettings {
        &self.settings
    }

    /// The network of an address, by this lane's bits.
    #[must_use]
    pub fn prefix(&self, address: IpAddr) -> Prefix {
        let (v4, v6) = self.settings.prefix_bits;
        Prefix::of(address, v4, v6)
    }

    fn is_trusted(&self, prefix: &Prefix) -> bool {
        self.settings
            .trusted
            .iter()
            .any(|trusted| trusted.covers(prefix))
    }

    /// A connection was accepted: serve it, or reset it unread. [`Self::left`] must follow a
    /// served one. Half of the lane's connections are for networks that proved who they are.
    pub fn arrived(&self, prefix: Prefix) -> Welcome {
        let traffic = &self.shared.traffic;
        let lane = self.kind.as_str();
        let (open, most) = (
            self.connections.load(Ordering::Relaxed),
            self.settings.http.connections,
        );
        if open >= most {
            traffic.connection(lane, prefix, Connection::Full);
            return Welcome::Drop;
        }
        let crowded = open >= most.div_ceil(2) && !self.is_trusted(&prefix);
        let welcome = lock(&self.prefixes).arrived(prefix, since_boot_ns(), crowded);
        match welcome {
            Welcome::Serve => {
                self.connections.fetch_add(1, Ordering::Relaxed);
            }
            Welcome::Drop if crowded => traffic.connection(lane, prefix, Connection::Full),
            Welcome::Drop => traffic.connection(lane, prefix, Connection::Dropped),
        }
        welcome
    }

    /// A connection ended.
    pub fn left(&self, prefix: Prefix) {
        lock(&self.prefixes).left(prefix);
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether a connection may stay open after this refusal: a handshake costs more than a
    /// refusal. Not where the network provokes them, nor where the lane is half full.
    pub(super) fn may_stay(&self, prefix: Prefix, reason: Reason) -> bool {
        let open = self.connections.load(Ordering::Relaxed);
        reason.leaves_open()
            && open <= self.settings.http.connections / 2
            && !lock(&self.prefixes).is_dropped(prefix, since_boot_ns())
    }

    /// Looks at a request before anything is allocated for it: `Some` when it would surely be
    /// refused. Charges nothing but the refusal itself.
    pub fn look(&self, head: &Head<'_>, prefix: Prefix) -> Option<Refusal> {
        let anonymous = Shared::anonymous(prefix);
        let (client, refusal) = match self.known(head, prefix) {
            Err(refusal) => (anonymous, Some(refusal)),
            Ok(None) => (anonymous, self.would_not_verify(prefix)),
            Ok(Some(client)) => (client, self.would_refuse(head, &client)),
        };
        let refusal = refusal?;
        self.note(&client, head.weight, refusal.reason);
        Some(refusal)
    }

    /// A signed request that would be turned away before its signature is looked at.
    fn would_not_verify(&self, prefix: Prefix) -> Option<Refusal> {
        self.too_fast(prefix).or_else(|| self.verifier_busy())
    }

    fn too_fast(&self, prefix: Prefix) -> Option<Refusal> {
        if self.is_trusted(&prefix) {
            return None;
        }
        let slow = lock(&self.prefixes).peek_request(prefix, since_boot_ns());
        let wait = slow.err()?;
        Some(Refusal::after(Reason::SlowDown, seconds_up(wait)))
    }

    fn would_refuse(&self, head: &Head<'_>, client: &Client) -> Option<Refusal> {
        if let Err(refusal) = self.may(head, client) {
            return Some(refusal);
        }
        if let Some(refusal) = self.too_fast(client.prefix) {
            return Some(refusal);
        }
        if head.weight != Weight::Heavy {
            return None;
        }
        if !self.seats.is_free(client.class) {
            return Some(Refusal::after(Reason::Overload, 1));
        }
        let (charges, now) = (self.charges(client), since_boot_ns());
        let budgets = lock(&self.budgets);
        match budgets.peek(charges.all(), now) {
            Ok(()) => None,
            Err(denied) => Some(charging::denied(
                &budgets,
                &charges,
                client.class,
                denied,
                now,
            )),
        }
    }

    /// Counts a refusal against its prefix and in the books.
    pub fn note(&self, client: &Client, weight: Weight, reason: Reason) {
        if reason.is_clients_fault() && !self.is_trusted(&client.prefix) {
            lock(&self.prefixes).refused(client.prefix, since_boot_ns());
        }
        let lane = self.kind.as_str();
        self.shared.traffic.refused(lane, client, weight, reason);
    }

    /// Who a request without signature comes from; `None` where a signature must be verified first.
    fn known(&self, head: &Head<'_>, prefix: Prefix) -> Result<Option<Client>, Refusal> {
        let shared = &self.shared;
        if let Some(text) = head.token {
            let now = now_ms();
            let tokens = read(&shared.tokens);
            let token = tokens.find(text, now).ok_or(Reason::Token)?;
            return Ok(Some(shared.by_token(token, text, prefix)));
        }
        if head.signed && head.weight != Weight::Auth {
            return Ok(None);
        }
        let mut client = Shared::anonymous(prefix);
        if self.is_trusted(&prefix) {
            client.class = Class::Scorer;
        }
        Ok(Some(client))
    }

    /// Bounds, rules and lane; nothing that is charged.
    fn may(&self, head: &Head<'_>, client: &Client) -> Result<(), Refusal> {
        if !head.is_short() {
            return Err(Reason::TooLong.into());
        }
        let wanted = match head.method {
            Asked::Read => true,
            Asked::Post => head.weight == Weight::Auth,
            Asked::Other => false,
        };
        if !wanted {
            return Err(Reason::Method.into());
        }
        if read(&self.shared.rules).is_blocked(client, now_ms()) {
            return Err(Refusal::after(Reason::Blocked, 3600));
        }
        let open = client.class.is_protected() || head.weight != Weight::Heavy;
        if self.kind == LaneKind::Protected && !open {
            return Err(Reason::WrongLane.into());
        }
        Ok(())
    }

    /// Lets a request in or refuses it. Everything that it holds is in the pass.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn admit(self: &Arc<Self>, parts: &Parts, prefix: Prefix) -> Result<Pass, Refusal> {
        let target = parts.uri.path_and_query().map_or("/", |t| t.as_str());
        let head = Head::of(&parts.method, target, &parts.headers);
        let mut client = Shared::anonymous(prefix);
        let pass = self.decide(&head, parts, &mut client);
        if let Err(refusal) = &pass {
            self.note(&client, head.weight, refusal.reason);
        }
        pass
    }

    fn decide(
        self: &Arc<Self>,
        head: &Head<'_>,
        parts: &Parts,
        client: &mut Client,
    ) -> Result<Pass, Refusal> {
        let (prefix, now) = (client.prefix, since_boot_ns());
        if !self.is_trusted(&prefix) {
            let slow = |wait| Refusal::after(Reason::SlowDown, seconds_up(wait));
            lock(&self.prefixes).request(prefix, now).map_err(slow)?;
        }
        *client = match self.known(head, prefix)? {
            Some(client) => client,
            None => self.signed(head, parts, prefix)?,
        };
        self.may(head, client)?;
        if client.class != Class::Anonymous {
            lock(&self.prefixes).proven(prefix, now);
        }
        let mut pass = Pass {
            client: *client,
            weight: head.weight,
            allowance: None,
            permit: Mutex::new(None),
        };
        if head.weight == Weight::Heavy {
            let permit = self.seat(client)?;
            pass.allowance = Some(self.charge(client, now)?);
            pass.permit = Mutex::new(Some(permit));
        }
        Ok(pass)
    }

    /// A seat first, the budget after: nobody pays for being turned away.
    fn seat(self: &Arc<Self>, client: &Client) -> Result<Permit, Refusal> {
        let overload = || Refusal::after(Reason::Overload, 1);
        let seat = self.seats.take(client.class).ok_or_else(overload)?;
        let mut prefixes = lock(&self.prefixes);
        let trusted = self.is_trusted(&client.prefix);
        if !prefixes.begin_response(client.prefix, since_boot_ns()) && !trusted {
            return Err(Refusal::after(Reason::SlowDown, 1));
        }
        Ok(Permit {
            gate: Arc::clone(self),
            prefix: client.prefix,
            _seat: seat,
        })
    }

    /// The present numbers.
    #[must_use]
    pub fn state(&self) -> LaneState {
        let open = self.connections.load(Ordering::Relaxed);
        LaneState {
            lane: self.kind.as_str(),
            connections: (open, self.settings.http.connections),
            seats: self.seats.read(),
        }
    }
}

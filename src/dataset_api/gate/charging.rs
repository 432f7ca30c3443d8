//! Who pays for a heavy request, and what everybody may still take.

use super::Gate;
use crate::dataset_api::budgets::{Account, Budgets, Charge, Denied, since_boot_ns};
use crate::dataset_api::client::{Class, Client};
use crate::dataset_api::gcra::{Quota, seconds_up};
use crate::dataset_api::lock;
use crate::dataset_api::refusal::{Allowance, Reason, Refusal};
use crate::dataset_api::shared::read;

/// Most accounts that one request is charged to.
const CHARGES: usize = 4;

pub(super) struct Charges {
    list: [Charge; CHARGES],
    count: usize,
}

impl Charges {
    fn add(&mut self, account: Account, quota: Quota) {
        if self.count < CHARGES {
            self.list[self.count] = (account, quota);
            self.count += 1;
        }
    }

    pub(super) fn all(&self) -> &[Charge] {
        &self.list[..self.count]
    }
}

impl Gate {
    pub(super) fn charge(&self, client: &Client, now: u64) -> Result<Allowance, Refusal> {
        let charges = self.charges(client);
        let mut budgets = lock(&self.budgets);
        if let Err(denied) = budgets.take(charges.all(), now) {
            return Err(self::denied(&budgets, &charges, client.class, denied, now));
        }
        Ok(allowance(
            &budgets,
            &charges.list[0],
            client.class.as_str(),
            now,
        ))
    }

    /// Who pays for a heavy request: the client itself, then what it shares with others.
    pub(super) fn charges(&self, client: &Client) -> Charges {
        let shared = &self.shared;
        let rules = read(&shared.rules);
        let quotas = &shared.settings.quotas;
        let quota = rules
            .limit(client)
            .unwrap_or_else(|| quotas.of(client.class));
        let account = match (client.issued, client.hotkey, client.coldkey) {
            (Some(digest), ..) => Account::Group(digest),
            (None, Some(hotkey), _) => Account::Hotkey(hotkey),
            (None, None, Some(coldkey)) => Account::Coldkey(coldkey),
            (None, None, None) => Account::Prefix(client.prefix),
        };
        let mut charges = Charges {
            list: [(account, quota); CHARGES],
            count: 1,
        };
        if let (Some(_), Some(coldkey)) = (client.hotkey, client.coldkey)
            && !client.class.is_protected()
        {
            charges.add(Account::Coldkey(coldkey), quotas.coldkey);
        }
        let known = !matches!(account, Account::Prefix(_));
        if known && !client.class.is_protected() {
            charges.add(Account::Prefix(client.prefix), quotas.network);
        }
        let group = shared
            .settings
            .groups
            .iter()
            .find(|g| g.name == client.group);
        let group = rules
            .group_limit(client.group)
            .or(group.and_then(|g| g.quota));
        if let Some(quota) = group {
            charges.add(Account::group(client.group), quota);
        }
        charges
    }

    /// What a client may take, account by account, the client's own first.
    #[must_use]
    pub fn allowances(&self, client: &Client) -> Vec<Allowance> {
        let (charges, now) = (self.charges(client), since_boot_ns());
        let budgets = lock(&self.budgets);
        let name = |index: usize, account: &Account| match account {
            _ if index == 0 => client.class.as_str(),
            Account::Group(_) => "group",
            Account::Prefix(_) => "network",
            Account::Coldkey(_) | Account::Hotkey(_) => "coldkey",
        };
        let all = charges.all().iter().enumerate();
        all.map(|(i, charge)| allowance(&budgets, charge, name(i, &charge.0), now))
            .collect()
    }
}

fn allowance(budgets: &Budgets, charge: &Charge, policy: &'static str, now: u64) -> Allowance {
    let (left, refill_ns) = budgets.left(charge, now);
    Allowance {
        policy,
        quota: charge.1.burst(),
        window_s: charge.1.window().as_secs(),
        left,
        refill_s: refill_ns.div_ceil(1_000_000_000),
    }
}

/// The refusal of a charge, with what the account that must wait longest may take.
pub(super) fn denied(
    budgets: &Budgets,
    charges: &Charges,
    class: Class,
    denied: Denied,
    now: u64,
) -> Refusal {
    match denied {
        Denied::Full => Refusal::after(Reason::Overload, 60),
        Denied::Empty { index, wait_ns } => {
            let policy = match charges.list[index].0 {
                Account::Group(_) if index > 0 => "group",
                Account::Prefix(_) if index > 0 => "network",
                Account::Coldkey(_) if index > 0 => "coldkey",
                _ => class.as_str(),
            };
            let allowance = allowance(budgets, &charges.list[index], policy, now);
            Refusal::after(Reason::Budget, seconds_up(wait_ns)).with(allowance)
        }
    }
}

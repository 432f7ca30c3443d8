//! Configuration into settings.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bittensor::Netuid;
use crate::cmd::web_limits;
use crate::config::{Budget, DatasetApi, LaneBounds, Limits};
use crate::dataset_api::client::Class;
use crate::dataset_api::gcra::Quota;
use crate::dataset_api::gradient::Range;
use crate::dataset_api::identity::registry::Standing;
use crate::dataset_api::prefix::{Prefix, PrefixLimits};
use crate::dataset_api::settings::{Group, LaneSettings, Quotas, Settings};
use crate::dataset_api::timed::Progress;

/// Networks remembered per lane, each about 100 bytes.
const PREFIXES_MAX: usize = 65_536;
/// The chain's unit of stake per whole alpha.
const PER_ALPHA: u64 = 1_000_000_000;

fn per_second(count: u32, burst: u32) -> Quota {
    Quota::new(count.saturating_mul(burst), count, Duration::from_secs(1))
}

fn quota(budget: Budget) -> Quota {
    Quota::new(budget.burst, budget.per_hour, Duration::from_hours(1))
}

fn lane(listen: std::net::SocketAddr, bounds: &LaneBounds, limits: &Limits) -> LaneSettings {
    LaneSettings {
        listen,
        trusted: Vec::new(),
        http: web_limits(limits),
        prefix: PrefixLimits {
            connections: bounds.prefix_connections,
            responses: bounds.prefix_responses,
            requests: per_second(bounds.prefix_requests_per_s, 2),
            refusals: per_second(bounds.prefix_refusals_per_s, 4),
            signatures: per_second(bounds.prefix_requests_per_s.div_ceil(4), 2),
            penalty: bounds.penalty,
            remembered: PREFIXES_MAX,
        },
        prefix_bits: (bounds.prefix_v4_bits, bounds.prefix_v6_bits),
        seats: Range {
            least: bounds.seats_min,
            most: bounds.seats,
        },
        progress: Progress {
            grace: bounds.reader_grace,
            bytes_per_s: bounds.reader_rate_min.0,
        },
        bandwidth: bounds.bandwidth.0,
        send_bytes: usize::try_from(bounds.send_buffer.0).unwrap_or(usize::MAX),
        signatures_per_s: bounds.signatures_per_s,
        nice: bounds.nice.into(),
    }
}

/// The settings that a checked configuration asks for.
pub(super) fn settings(config: &DatasetApi) -> Settings {
    let budgets = &config.budgets;
    let classes = [
        (Class::Scorer, budgets.scorer),
        (Class::Validator, budgets.validator),
        (Class::Miner, budgets.miner),
        (Class::Coldkey, budgets.coldkey),
        (Class::Anonymous, budgets.anonymous),
    ];
    let classes: BTreeMap<_, _> = classes.map(|(class, b)| (class, quota(b))).into();
    let groups = config.groups.iter().map(|group| Group {
        // Groups are read once per process: their names may live as long as it does.
        name: Box::leak(group.name.clone().into_boxed_str()),
        netuid: group.netuid.map(Netuid),
        quota: group.budget.map(quota),
    });
    let protected = config.protected.as_ref().map(|p| {
        let trusted = p.trusted.iter();
        LaneSettings {
            trusted: trusted
                .map(|n| Prefix::network(n.address, n.length))
                .collect(),
            ..lane(p.listen, &p.bounds, &config.limits)
        }
    });
    Settings {
        public: lane(config.listen, &config.public, &config.limits),
        protected,
        state: config.state.clone(),
        receiver: config.hotkey,
        standing: Standing {
            scorers: config.scorers.clone(),
            validator_stake_min: config.validator_stake_min.saturating_mul(PER_ALPHA),
        },
        groups: groups.collect(),
        quotas: Quotas {
            classes,
            coldkey: quota(budgets.per_coldkey),
            network: quota(budgets.network),
        },
        token_life: config.token_life,
        log_every: config.log_every,
    }
}

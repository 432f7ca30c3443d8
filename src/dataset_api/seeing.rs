//! What the operator sees: metrics, top talkers, abnormal traffic, the day's report, a sampled log.

pub mod anomaly;
pub mod day;
pub mod sketch;
pub mod traffic;

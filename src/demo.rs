//! Parts of the demo that stand in for the world: model hub, judge, corpus, miners.

pub mod children;
#[cfg(test)]
mod copy_table;
pub mod corpus;
pub mod judge;
pub mod ladder;
pub mod model_hub;
pub mod scorer_build;

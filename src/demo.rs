//! Parts of the demo that stand in for the world: model hub, judge, corpus, miners.

//! Conversations: corpus, sealed packs, sampling by seed.

//! Composition roots, one per subcommand; the only place that spawns long-lived tasks.

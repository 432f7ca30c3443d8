# Short names for the commands that the README explains. `just` lists them.

default:
    @just --list

# What CI runs, but for installing
test:
    cargo test --workspace

# Formatting, lints, documentation, dependencies
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
    cargo deny check bans licenses sources

# The whole validator on an embedded dev chain
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# The sealed CPU scorer as one static binary
scorer:
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked \
        --target x86_64-unknown-linux-gnu --target-dir target/scorer -p assay-scorer-cpu

# Benchmarks; each prints its machine and ratios
bench:
    cargo bench

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

# The Python scorer's tests, beside the CPU scorer's (needs target/venv-scorer, see docker/scorer/README.md)
test-scorer:
    cargo build --workspace --bin scorer-cpu
    target/venv-scorer/bin/python -m pytest docker/scorer

# The engine hf on this host's GPU: the ladder, and load, prefill and decode rates of a large model
gpu-test:
    target/venv-scorer/bin/python -m pytest -q docker/scorer/tests/test_gpu.py

# The Python scorer's image for CPU hosts; prints its id
image-cpu:
    docker/scorer/image-cpu.sh

# The bill of materials of the production scorer, without the fields that change at each writing
scorer-sbom:
    cd docker/scorer && uv export -q --format cyclonedx1.5 --extra vllm --no-dev --frozen \
        | python3 -c 'import json,sys; d=json.load(sys.stdin); d.pop("serialNumber"); d["metadata"].pop("timestamp"); json.dump(d,sys.stdout,indent=1,sort_keys=True); print()' > sbom.cdx.json

# Each fuzz target for so many seconds, from the seeds and whatever former runs found
fuzz SECONDS="600" *TARGETS:
    fuzz/run {{SECONDS}} {{TARGETS}}

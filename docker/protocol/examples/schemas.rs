//! Rewrites `docker/protocol/schemas` from the types: `cargo run -p assay-protocol --example schemas`.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    for (name, text) in assay_protocol::schemas() {
        std::fs::write(dir.join(name), text)?;
    }
    Ok(())
}

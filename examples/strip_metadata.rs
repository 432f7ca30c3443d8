//! Makes `metadata/finney-365.scale` small: drops docs, pallets and runtime APIs that neither the
//! client nor the dev chain nor the Python SDKs' basic calls touch.
//!
//! `cargo run --example strip_metadata -- IN.scale OUT.scale`

use anyhow::{Context, bail};
use codec::{Decode, Encode};
use frame_metadata::v16::RuntimeMetadataV16;
use frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed};
use subxt_utils_stripmetadata::StripMetadata;

/// Removing a pallet removes its variants from the outer enums; indices of the others stay.
const PALLETS: [&str; 12] = [
    "System",
    "Timestamp",
    "Aura",
    "Balances",
    "TransactionPayment",
    "SubtensorModule",
    "Utility",
    "Sudo",
    "Commitments",
    "AdminUtils",
    "Drand",
    "Swap",
];

const RUNTIME_APIS: [&str; 8] = [
    "Core",
    "Metadata",
    "TaggedTransactionQueue",
    "AccountNonceApi",
    "TransactionPaymentApi",
    "AuraApi",
    "NeuronInfoRuntimeApi",
    "SubnetInfoRuntimeApi",
];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output] = arguments.as_slice() else {
        bail!("usage: strip_metadata IN.scale OUT.scale");
    };
    let bytes = std::fs::read(input).with_context(|| format!("cannot read {input}"))?;
    let mut metadata = RuntimeMetadataPrefixed::decode(&mut bytes.as_slice())
        .with_context(|| format!("{input} is not SCALE metadata with its magic number"))?;
    let RuntimeMetadata::V16(inner) = &mut metadata.1 else {
        bail!(
            "{input} holds metadata version {}, want 16",
            metadata.1.version()
        );
    };
    inner.strip_metadata(|p| PALLETS.contains(&p), |a| RUNTIME_APIS.contains(&a));
    clear_docs(inner);
    let stripped = metadata.encode();
    subxt::Metadata::decode_from(&stripped).context("the stripped metadata does not read back")?;
    std::fs::write(output, stripped).with_context(|| format!("cannot write {output}"))?;
    Ok(())
}

fn clear_docs(metadata: &mut RuntimeMetadataV16) {
    for entry in &mut metadata.types.types {
        clear_type_docs(&mut entry.ty);
    }
    for pallet in &mut metadata.pallets {
        pallet.docs.clear();
        pallet.constants.iter_mut().for_each(|c| c.docs.clear());
        pallet
            .view_functions
            .iter_mut()
            .for_each(|f| f.docs.clear());
        pallet
            .associated_types
            .iter_mut()
            .for_each(|t| t.docs.clear());
        for entry in pallet.storage.iter_mut().flat_map(|s| &mut s.entries) {
            entry.docs.clear();
        }
    }
    for api in &mut metadata.apis {
        api.docs.clear();
        api.methods.iter_mut().for_each(|m| m.docs.clear());
    }
}

fn clear_type_docs(ty: &mut scale_info::Type<scale_info::form::PortableForm>) {
    ty.docs.clear();
    match &mut ty.type_def {
        scale_info::TypeDef::Composite(composite) => {
            composite.fields.iter_mut().for_each(|f| f.docs.clear());
        }
        scale_info::TypeDef::Variant(variants) => {
            for variant in &mut variants.variants {
                variant.docs.clear();
                variant.fields.iter_mut().for_each(|f| f.docs.clear());
            }
        }
        _ => {}
    }
}

//! Answers to the metadata requests of old and new clients: V16 as it is, V15 and V14 made from it.
//! Python clients ask for V15 (runtime APIs) or V14, subxt for the newest.

use super::error::DevChainError;
use codec::{Compact, Decode, Encode};
use frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed, v14, v15, v16};
use scale_info::form::PortableForm;
use scale_info::{Path, PortableType, Type, TypeDefComposite, TypeDefTuple, TypeParameter};
use std::time::Duration;

/// Encoded metadata by version, each with its magic number.
#[derive(Debug)]
pub(super) struct MetadataAnswers {
    by_version: Vec<(u32, Vec<u8>)>,
}

impl MetadataAnswers {
    /// Versions on offer, ascending.
    pub(super) fn versions(&self) -> Vec<u32> {
        self.by_version.iter().map(|(v, _)| *v).collect()
    }

    pub(super) fn version(&self, version: u32) -> Option<&[u8]> {
        let found = self.by_version.iter().find(|(v, _)| *v == version)?;
        Some(&found.1)
    }

    /// The newest version's bytes.
    pub(super) fn latest(&self) -> &[u8] {
        self.by_version.last().map_or(&[], |(_, bytes)| bytes)
    }
}

/// Decodes V15 or V16 metadata and prepares all answers.
pub(super) fn read(bytes: &[u8], slot: Option<Duration>) -> Result<MetadataAnswers, DevChainError> {
    let prefixed = RuntimeMetadataPrefixed::decode(&mut &*bytes)
        .map_err(|e| DevChainError::Metadata(format!("not SCALE metadata: {e}")))?;
    let slot = slot.map(|s| u64::try_from(s.as_millis()).unwrap_or(u64::MAX));
    let mut by_version = Vec::new();
    let v15 = match prefixed.1 {
        RuntimeMetadata::V16(mut v16) => {
            for pallet in &mut v16.pallets {
                let constants = pallet.constants.iter_mut();
                patch_slot(
                    &pallet.name,
                    constants.map(|c| (&*c.name, &mut c.value)),
                    slot,
                );
            }
            let v15 = v15_from_v16(&v16)?;
            by_version.push((16, RuntimeMetadataPrefixed::from(v16).encode()));
            v15
        }
        RuntimeMetadata::V15(mut v15) => {
            for pallet in &mut v15.pallets {
                let constants = pallet.constants.iter_mut();
                patch_slot(
                    &pallet.name,
                    constants.map(|c| (&*c.name, &mut c.value)),
                    slot,
                );
            }
            v15
        }
        other => {
            let found = other.version();
            return Err(DevChainError::Metadata(format!(
                "version {found} lacks the runtime APIs; give a V15 or V16 file"
            )));
        }
    };
    by_version.push((
        14,
        RuntimeMetadataPrefixed::from(v14_from_v15(&v15)).encode(),
    ));
    by_version.push((15, RuntimeMetadataPrefixed::from(v15).encode()));
    by_version.sort_by_key(|(version, _)| *version);
    Ok(MetadataAnswers { by_version })
}

/// A fast-runtime build differs from the production one in these constants.
fn patch_slot<'a>(
    pallet: &str,
    constants: impl Iterator<Item = (&'a str, &'a mut Vec<u8>)>,
    slot: Option<u64>,
) {
    let Some(slot) = slot else { return };
    for (name, value) in constants {
        match (pallet, name) {
            ("Aura", "SlotDuration") => *value = slot.encode(),
            ("Timestamp", "MinimumPeriod") => *value = (slot / 2).encode(),
            _ => {}
        }
    }
}

type Registry = scale_info::PortableRegistry;

const EXTRINSIC_PATH: [&str; 4] = [
    "sp_runtime",
    "generic",
    "unchecked_extrinsic",
    "UncheckedExtrinsic",
];

fn push_type(types: &mut Registry, ty: Type<PortableForm>) -> Result<u32, DevChainError> {
    let id = u32::try_from(types.types.len())
        .map_err(|_| DevChainError::Metadata("too many types".to_owned()))?;
    types.types.push(PortableType { id, ty });
    Ok(id)
}

fn v15_from_v16(from: &v16::RuntimeMetadataV16) -> Result<v15::RuntimeMetadataV15, DevChainError> {
    let mut types = from.types.clone();
    let extensions = &from.extrinsic.transaction_extensions;
    let tuple = Type::new(
        Path { segments: vec![] },
        vec![],
        TypeDefTuple::new_portable(extensions.iter().map(|e| e.ty)),
        vec![],
    );
    let extra_ty = push_type(&mut types, tuple)?.into();
    let extrinsic = v15::ExtrinsicMetadata {
        version: 4,
        address_ty: from.extrinsic.address_ty,
        call_ty: from.extrinsic.call_ty,
        signature_ty: from.extrinsic.signature_ty,
        extra_ty,
        signed_extensions: extensions.iter().map(signed_extension).collect(),
    };
    let wrapper = Type::new(
        Path {
            segments: EXTRINSIC_PATH.map(str::to_owned).to_vec(),
        },
        [
            ("Address", extrinsic.address_ty),
            ("Call", extrinsic.call_ty),
            ("Signature", extrinsic.signature_ty),
            ("Extra", extra_ty),
        ]
        .map(|(name, ty)| TypeParameter::new_portable(name.to_owned(), Some(ty)))
        .to_vec(),
        TypeDefComposite { fields: vec![] },
        vec![],
    );
    // V14 names the extrinsic by this type; V15 readers ignore it.
    push_type(&mut types, wrapper)?;
    Ok(v15::RuntimeMetadataV15 {
        types,
        pallets: from.pallets.iter().map(pallet_v15).collect(),
        extrinsic,
        ty: from.outer_enums.call_enum_ty,
        apis: from.apis.iter().map(api_v15).collect(),
        outer_enums: from.outer_enums.clone(),
        custom: from.custom.clone(),
    })
}

fn signed_extension(
    from: &v16::TransactionExtensionMetadata<PortableForm>,
) -> v15::SignedExtensionMetadata<PortableForm> {
    v15::SignedExtensionMetadata {
        identifier: from.identifier.clone(),
        ty: from.ty,
        additional_signed: from.implicit,
    }
}

fn pallet_v15(from: &v16::PalletMetadata<PortableForm>) -> v15::PalletMetadata<PortableForm> {
    v15::PalletMetadata {
        name: from.name.clone(),
        storage: from.storage.as_ref().map(storage_v14),
        calls: from
            .calls
            .as_ref()
            .map(|c| v15::PalletCallMetadata { ty: c.ty }),
        event: from
            .event
            .as_ref()
            .map(|e| v15::PalletEventMetadata { ty: e.ty }),
        constants: from
            .constants
            .iter()
            .map(|c| v15::PalletConstantMetadata {
                name: c.name.clone(),
                ty: c.ty,
                value: c.value.clone(),
                docs: c.docs.clone(),
            })
            .collect(),
        error: from
            .error
            .as_ref()
            .map(|e| v15::PalletErrorMetadata { ty: e.ty }),
        index: from.index,
        docs: from.docs.clone(),
    }
}

fn storage_v14(
    from: &v16::PalletStorageMetadata<PortableForm>,
) -> v14::PalletStorageMetadata<PortableForm> {
    v14::PalletStorageMetadata {
        prefix: from.prefix.clone(),
        entries: from
            .entries
            .iter()
            .map(|e| v14::StorageEntryMetadata {
                name: e.name.clone(),
                modifier: e.modifier.clone(),
                ty: e.ty.clone(),
                default: e.default.clone(),
                docs: e.docs.clone(),
            })
            .collect(),
    }
}

fn api_v15(from: &v16::RuntimeApiMetadata<PortableForm>) -> v15::RuntimeApiMetadata<PortableForm> {
    v15::RuntimeApiMetadata {
        name: from.name.clone(),
        methods: from
            .methods
            .iter()
            .map(|m| v15::RuntimeApiMethodMetadata {
                name: m.name.clone(),
                inputs: m.inputs.clone(),
                output: m.output,
                docs: m.docs.clone(),
            })
            .collect(),
        docs: from.docs.clone(),
    }
}

fn v14_from_v15(from: &v15::RuntimeMetadataV15) -> v14::RuntimeMetadataV14 {
    let extrinsic_type = from
        .types
        .types
        .iter()
        .find(|t| {
            t.ty.path
                .segments
                .last()
                .is_some_and(|s| s == "UncheckedExtrinsic")
        })
        .map_or(from.extrinsic.call_ty, |t| t.id.into());
    v14::RuntimeMetadataV14 {
        types: from.types.clone(),
        pallets: from.pallets.iter().map(pallet_v14).collect(),
        extrinsic: v14::ExtrinsicMetadata {
            ty: extrinsic_type,
            version: from.extrinsic.version,
            signed_extensions: from
                .extrinsic
                .signed_extensions
                .iter()
                .map(|e| v14::SignedExtensionMetadata {
                    identifier: e.identifier.clone(),
                    ty: e.ty,
                    additional_signed: e.additional_signed,
                })
                .collect(),
        },
        ty: from.ty,
    }
}

fn pallet_v14(from: &v15::PalletMetadata<PortableForm>) -> v14::PalletMetadata<PortableForm> {
    v14::PalletMetadata {
        name: from.name.clone(),
        storage: from.storage.clone(),
        calls: from
            .calls
            .as_ref()
            .map(|c| v14::PalletCallMetadata { ty: c.ty }),
        event: from
            .event
            .as_ref()
            .map(|e| v14::PalletEventMetadata { ty: e.ty }),
        constants: from
            .constants
            .iter()
            .map(|c| v14::PalletConstantMetadata {
                name: c.name.clone(),
                ty: c.ty,
                value: c.value.clone(),
                docs: c.docs.clone(),
            })
            .collect(),
        error: from
            .error
            .as_ref()
            .map(|e| v14::PalletErrorMetadata { ty: e.ty }),
        index: from.index,
    }
}

/// SCALE of `Option<OpaqueMetadata>`, the answer of `Metadata_metadata_at_version`.
pub(super) fn opaque(bytes: Option<&[u8]>) -> Vec<u8> {
    let Some(bytes) = bytes else { return vec![0] };
    let len = Compact(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    let mut out = vec![1];
    len.encode_to(&mut out);
    out.extend_from_slice(bytes);
    out
}

//! Runtime upgrades: a second metadata made from the first, with the kinds of change that real upgrades
//! brought, so that clients can be tested while the chain changes under them.
//!
//! The bytes of storage, calls and answers stay what they were: a newtype encodes like its number, a
//! new field is the type's zero, an extension without data adds nothing.

use super::error::DevChainError;
use codec::{Compact, Decode, Encode};
use frame_metadata::v14::StorageEntryType;
use frame_metadata::v16::{RuntimeMetadataV16, TransactionExtensionMetadata};
use frame_metadata::{RuntimeMetadata, RuntimeMetadataPrefixed};
use scale_info::form::PortableForm;
use scale_info::{
    Field, Path, PortableType, Type, TypeDef, TypeDefComposite, TypeDefPrimitive, TypeDefTuple,
};

/// What the next runtime changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// The next `spec_version`.
    pub spec_version: u32,
    /// `NetUid`, a newtype, in place of `u16` wherever a netuid stands.
    pub netuid_newtype: bool,
    /// One more optional field in the metagraph's answer.
    pub extra_field: bool,
    /// One more transaction extension, without data.
    pub extra_extension: bool,
    /// Calls with another name: pallet, old name, new name.
    pub renamed_calls: Vec<(String, String, String)>,
}

impl Upgrade {
    /// Everything that changes nothing for a client that reads by name.
    #[must_use]
    pub fn harmless(spec_version: u32) -> Self {
        let call = (
            "SubtensorModule",
            "batch_set_weights",
            "batch_set_weights_v2",
        );
        Self {
            spec_version,
            netuid_newtype: true,
            extra_field: true,
            extra_extension: true,
            renamed_calls: vec![(call.0.into(), call.1.into(), call.2.into())],
        }
    }

    /// The same, with one call renamed that validators depend on.
    #[must_use]
    pub fn renaming(spec_version: u32, pallet: &str, from: &str, to: &str) -> Self {
        let mut upgrade = Self::harmless(spec_version);
        let call = (pallet.to_owned(), from.to_owned(), to.to_owned());
        upgrade.renamed_calls.push(call);
        upgrade
    }
}

fn fail(why: impl Into<String>) -> DevChainError {
    DevChainError::Metadata(why.into())
}

/// The next runtime's metadata, V16 with its magic number.
pub(super) fn variant(bytes: &[u8], upgrade: &Upgrade) -> Result<Vec<u8>, DevChainError> {
    let mut metadata = RuntimeMetadataPrefixed::decode(&mut &*bytes)
        .map_err(|e| fail(format!("not SCALE metadata: {e}")))?;
    let RuntimeMetadata::V16(inner) = &mut metadata.1 else {
        return Err(fail("an upgrade needs V16 metadata"));
    };
    set_spec_version(inner, upgrade.spec_version)?;
    if upgrade.netuid_newtype {
        wrap_netuids(inner)?;
    }
    if upgrade.extra_field {
        add_field(inner)?;
    }
    if upgrade.extra_extension {
        add_extension(inner)?;
    }
    for (pallet, from, to) in &upgrade.renamed_calls {
        rename_call(inner, pallet, from, to)?;
    }
    Ok(metadata.encode())
}

fn set_spec_version(metadata: &mut RuntimeMetadataV16, spec: u32) -> Result<(), DevChainError> {
    let mut pallets = metadata.pallets.iter_mut();
    let system = pallets.find(|p| p.name == "System");
    let mut constants = system.into_iter().flat_map(|p| &mut p.constants);
    let version = constants
        .find(|c| c.name == "Version")
        .ok_or_else(|| fail("no constant System.Version"))?;
    // Two texts and the authoring version stand before it.
    let rest = &mut version.value.as_slice();
    let read = <(String, String, u32)>::decode(rest).and_then(|_| u32::decode(rest));
    read.map_err(|e| fail(format!("System.Version: {e}")))?;
    let at = version.value.len() - rest.len() - 4;
    version.value[at..at + 4].copy_from_slice(&spec.to_le_bytes());
    Ok(())
}

fn find(metadata: &RuntimeMetadataV16, is: impl Fn(&TypeDef<PortableForm>) -> bool) -> Option<u32> {
    let mut types = metadata.types.types.iter();
    types.find(|t| is(&t.ty.type_def)).map(|t| t.id)
}

fn push(metadata: &mut RuntimeMetadataV16, ty: Type<PortableForm>) -> Result<u32, DevChainError> {
    let types = &mut metadata.types.types;
    let id = u32::try_from(types.len()).map_err(|_| fail("too many types"))?;
    types.push(PortableType { id, ty });
    Ok(id)
}

fn field(name: Option<&str>, ty: u32) -> Field<PortableForm> {
    Field {
        name: name.map(str::to_owned),
        ty: ty.into(),
        type_name: None,
        docs: Vec::new(),
    }
}

/// `NetUid(u16)` for every field, argument and key that is a netuid.
fn wrap_netuids(metadata: &mut RuntimeMetadataV16) -> Result<(), DevChainError> {
    let plain = find(metadata, |d| {
        *d == TypeDef::Primitive(TypeDefPrimitive::U16)
    })
    .ok_or_else(|| fail("no type u16"))?;
    let path = ["subtensor_runtime_common", "NetUid"];
    let newtype = Type::new(
        Path {
            segments: path.map(str::to_owned).to_vec(),
        },
        vec![],
        TypeDefComposite {
            fields: vec![field(None, plain)],
        },
        vec![],
    );
    let netuid = push(metadata, newtype)?;
    let wrap = |field: &mut Field<PortableForm>| {
        if field.name.as_deref() == Some("netuid") && field.ty.id == plain {
            field.ty = netuid.into();
        }
    };
    for entry in &mut metadata.types.types {
        match &mut entry.ty.type_def {
            TypeDef::Composite(c) => c.fields.iter_mut().for_each(wrap),
            TypeDef::Variant(v) => {
                let fields = v.variants.iter_mut().flat_map(|v| &mut v.fields);
                fields.for_each(wrap);
            }
            _ => {}
        }
    }
    for input in metadata
        .apis
        .iter_mut()
        .flat_map(|a| &mut a.methods)
        .flat_map(|m| &mut m.inputs)
    {
        if input.name == "netuid" && input.ty.id == plain {
            input.ty = netuid.into();
        }
    }
    wrap_keys(metadata, plain, netuid)
}

/// Maps of the two subnet pallets: a single `u16`, or the first of a pair.
fn wrap_keys(
    metadata: &mut RuntimeMetadataV16,
    plain: u32,
    netuid: u32,
) -> Result<(), DevChainError> {
    let mut keys = Vec::new();
    for (p, pallet) in metadata.pallets.iter().enumerate() {
        if !["SubtensorModule", "Commitments"].contains(&pallet.name.as_str()) {
            continue;
        }
        for (e, entry) in pallet.storage.iter().flat_map(|s| &s.entries).enumerate() {
            if let StorageEntryType::Map { key, .. } = &entry.ty {
                keys.push((p, e, key.id));
            }
        }
    }
    for (p, e, key) in keys {
        let parts = match metadata.types.resolve(key).map(|t| &t.type_def) {
            Some(TypeDef::Tuple(t)) if t.fields.first().is_some_and(|f| f.id == plain) => {
                let rest = t.fields[1..].iter().map(|f| f.id);
                std::iter::once(netuid).chain(rest).collect::<Vec<_>>()
            }
            _ if key == plain => vec![netuid],
            _ => continue,
        };
        let next = match parts.as_slice() {
            [one] => *one,
            many => {
                let fields = many.iter().map(|id| (*id).into());
                let tuple = TypeDefTuple::new_portable(fields);
                push(
                    metadata,
                    Type::new(Path { segments: vec![] }, vec![], tuple, vec![]),
                )?
            }
        };
        let storage = metadata.pallets[p].storage.as_mut();
        if let Some(entry) = storage.and_then(|s| s.entries.get_mut(e))
            && let StorageEntryType::Map { key, .. } = &mut entry.ty
        {
            *key = next.into();
        }
    }
    Ok(())
}

/// A last, optional field of `SelectiveMetagraph`.
fn add_field(metadata: &mut RuntimeMetadataV16) -> Result<(), DevChainError> {
    let number = find(metadata, |d| {
        *d == TypeDef::Primitive(TypeDefPrimitive::U64)
    })
    .ok_or_else(|| fail("no type u64"))?;
    let named =
        |name: &str, ty: &Type<PortableForm>| ty.path.segments.last().is_some_and(|s| s == name);
    let mut types = metadata.types.types.iter();
    let option = types.find(|t| {
        let TypeDef::Variant(v) = &t.ty.type_def else {
            return false;
        };
        named("Option", &t.ty)
            && v.variants
                .iter()
                .any(|v| v.fields.first().is_some_and(|f| f.ty.id == number))
    });
    let option = option.map_or(number, |t| t.id);
    let mut types = metadata.types.types.iter_mut();
    let metagraph = types.find(|t| named("SelectiveMetagraph", &t.ty));
    let Some(TypeDef::Composite(c)) = metagraph.map(|t| &mut t.ty.type_def) else {
        return Err(fail("no struct SelectiveMetagraph"));
    };
    c.fields.push(field(Some("collateral_total"), option));
    Ok(())
}

fn add_extension(metadata: &mut RuntimeMetadataV16) -> Result<(), DevChainError> {
    let unit = find(
        metadata,
        |d| matches!(d, TypeDef::Tuple(t) if t.fields.is_empty()),
    )
    .ok_or_else(|| fail("no unit type"))?;
    let extrinsic = &mut metadata.extrinsic;
    let index = u32::try_from(extrinsic.transaction_extensions.len())
        .map_err(|_| fail("too many extensions"))?;
    extrinsic
        .transaction_extensions
        .push(TransactionExtensionMetadata {
            identifier: "CheckUpgradeWindow".to_owned(),
            ty: unit.into(),
            implicit: unit.into(),
        });
    for used in extrinsic.transaction_extensions_by_version.values_mut() {
        used.push(Compact(index));
    }
    Ok(())
}

fn rename_call(
    metadata: &mut RuntimeMetadataV16,
    pallet: &str,
    from: &str,
    to: &str,
) -> Result<(), DevChainError> {
    let missing = || fail(format!("no call {pallet}.{from} to rename"));
    let found = metadata.pallets.iter().find(|p| p.name == pallet);
    let calls = found
        .and_then(|p| p.calls.as_ref())
        .ok_or_else(missing)?
        .ty
        .id;
    let mut types = metadata.types.types.iter_mut();
    let ty = types.find(|t| t.id == calls).ok_or_else(missing)?;
    let TypeDef::Variant(variants) = &mut ty.ty.type_def else {
        return Err(missing());
    };
    let call = variants.variants.iter_mut().find(|v| v.name == from);
    call.ok_or_else(missing)?.name = to.to_owned();
    Ok(())
}

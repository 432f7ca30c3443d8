//! Laying out structs by the metadata: each field by name, unknown ones zero.

use super::error::DevChainError;
use super::runtime::Runtime;
use codec::Encode;
use scale_info::{TypeDef, TypeDefPrimitive};

/// The type inside `Option<T>`, if `ty` is one.
pub(super) fn option_inner(runtime: &Runtime, ty: u32) -> Option<u32> {
    let info = runtime.types().resolve(ty)?;
    if info.path.segments.last().is_none_or(|s| s != "Option") {
        return None;
    }
    let TypeDef::Variant(variants) = &info.type_def else {
        return None;
    };
    let some = variants.variants.iter().find(|v| v.name == "Some")?;
    Some(some.fields.first()?.ty.id)
}

/// The type of `Vec<T>`'s elements.
pub(super) fn element(runtime: &Runtime, ty: u32) -> Option<u32> {
    match &runtime.types().resolve(ty)?.type_def {
        TypeDef::Sequence(sequence) => Some(sequence.type_param.id),
        _ => None,
    }
}

/// Encodes the struct `ty`: `field` gives each field's bytes, or `None` for the type's zero.
pub(super) fn encode_struct(
    runtime: &Runtime,
    ty: u32,
    out: &mut Vec<u8>,
    mut field: impl FnMut(&str, u32) -> Result<Option<Vec<u8>>, DevChainError>,
) -> Result<(), DevChainError> {
    let info = runtime
        .types()
        .resolve(ty)
        .ok_or_else(|| DevChainError::encode(format!("type {ty}"), "not in the registry"))?;
    let TypeDef::Composite(composite) = &info.type_def else {
        return Err(DevChainError::encode(info.path.to_string(), "no struct"));
    };
    for f in &composite.fields {
        let name = f.name.as_deref().unwrap_or_default();
        match field(name, f.ty.id)? {
            Some(bytes) => out.extend(bytes),
            None => zero(runtime, f.ty.id, out)?,
        }
    }
    Ok(())
}

/// The zero of a type: 0, empty, `None`, the first variant.
pub(super) fn zero(runtime: &Runtime, ty: u32, out: &mut Vec<u8>) -> Result<(), DevChainError> {
    let fail = |why: &str| DevChainError::encode(format!("type {ty}"), why);
    let info = runtime
        .types()
        .resolve(ty)
        .ok_or_else(|| fail("not in the registry"))?;
    match &info.type_def {
        TypeDef::Composite(c) => {
            for f in &c.fields {
                zero(runtime, f.ty.id, out)?;
            }
        }
        TypeDef::Variant(v) => {
            let first = v.variants.iter().min_by_key(|v| v.index);
            let first = first.ok_or_else(|| fail("an enum without variants"))?;
            out.push(first.index);
            for f in &first.fields {
                zero(runtime, f.ty.id, out)?;
            }
        }
        TypeDef::Sequence(_) | TypeDef::Compact(_) | TypeDef::BitSequence(_) => out.push(0),
        TypeDef::Array(array) => {
            for _ in 0..array.len {
                zero(runtime, array.type_param.id, out)?;
            }
        }
        TypeDef::Tuple(tuple) => {
            for f in &tuple.fields {
                zero(runtime, f.id, out)?;
            }
        }
        TypeDef::Primitive(primitive) => out.extend(primitive_zero(primitive)),
    }
    Ok(())
}

fn primitive_zero(primitive: &TypeDefPrimitive) -> Vec<u8> {
    match primitive {
        TypeDefPrimitive::Bool
        | TypeDefPrimitive::U8
        | TypeDefPrimitive::I8
        | TypeDefPrimitive::Str => vec![0],
        TypeDefPrimitive::U16 | TypeDefPrimitive::I16 => 0u16.encode(),
        TypeDefPrimitive::Char | TypeDefPrimitive::U32 | TypeDefPrimitive::I32 => 0u32.encode(),
        TypeDefPrimitive::U64 | TypeDefPrimitive::I64 => 0u64.encode(),
        TypeDefPrimitive::U128 | TypeDefPrimitive::I128 => 0u128.encode(),
        TypeDefPrimitive::U256 | TypeDefPrimitive::I256 => vec![0; 32],
    }
}

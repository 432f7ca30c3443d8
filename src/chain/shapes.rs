//! The shapes of the runtime that this program relies on, as a declared list, and the check of a live
//! runtime against it: once per runtime version, by name.
//!
//! A newtype around a number, a further field of a struct, a further optional argument's absence and a
//! transaction extension without data change nothing. A vital name that is gone or holds something
//! else means that nothing may be signed for this runtime: the node goes on reading what it can, and
//! the weights on chain stay as they are.

use scale_info::{PortableRegistry, TypeDef, TypeDefPrimitive, form::PortableForm};
use subxt::metadata::Metadata;

/// Shapes by name.
type Named = &'static [(&'static str, Shape)];

/// What a type must be, newtypes around it not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// An unsigned number, compact or not.
    Number,
    /// A truth value.
    Flag,
    /// 32 bytes.
    Account,
    /// A list of these.
    List(&'static Shape),
    /// Perhaps one of these.
    Maybe(&'static Shape),
    /// A tuple or a struct of these, in order.
    Pair(&'static Shape, &'static Shape),
    /// A struct with at least these fields.
    Fields(Named),
    /// Anything: it is read by names of its own.
    Any,
}

use Shape::{Account, Any, Fields, Flag, List, Maybe, Number, Pair};

const NUMBERS: Shape = List(&Number);

/// Storage: pallet, entry, number of keys, value.
const STORAGE: &[(&str, &str, usize, Shape)] = &[
    ("System", "Events", 0, Any),
    ("Timestamp", "Now", 0, Number),
    ("SubtensorModule", "StakeThreshold", 0, Number),
    ("SubtensorModule", "CommitRevealWeightsEnabled", 1, Flag),
    (
        "SubtensorModule",
        "Weights",
        2,
        List(&Pair(&Number, &Number)),
    ),
    (
        "Commitments",
        "CommitmentOf",
        2,
        Fields(&[("block", Number), ("info", Fields(&[("fields", Any)]))]),
    ),
];

/// Calls: pallet, call, arguments in any order.
const CALLS: &[(&str, &str, Named)] = &[
    (
        "SubtensorModule",
        "set_mechanism_weights",
        &[
            ("netuid", Number),
            ("mecid", Number),
            ("dests", NUMBERS),
            ("weights", NUMBERS),
            ("version_key", Number),
        ],
    ),
    (
        "SubtensorModule",
        "commit_timelocked_mechanism_weights",
        &[
            ("netuid", Number),
            ("mecid", Number),
            ("commit", NUMBERS),
            ("reveal_round", Number),
            ("commit_reveal_version", Number),
        ],
    ),
    (
        "Commitments",
        "set_commitment",
        &[("netuid", Number), ("info", Fields(&[("fields", Any)]))],
    ),
];

/// Events: pallet, event, leading fields that are read.
const EVENTS: &[(&str, &str)] = &[
    ("System", "ExtrinsicSuccess"),
    ("System", "ExtrinsicFailed"),
];

/// Runtime calls: trait, method, number of arguments, answer.
const APIS: &[(&str, &str, usize, Shape)] = &[
    ("AccountNonceApi", "account_nonce", 1, Number),
    (
        "SubnetInfoRuntimeApi",
        "get_selective_metagraph",
        2,
        Maybe(&METAGRAPH),
    ),
];

const METAGRAPH: Shape = Fields(&[
    ("netuid", Number),
    ("owner_hotkey", Maybe(&Account)),
    ("owner_coldkey", Maybe(&Account)),
    ("block", Maybe(&Number)),
    ("tempo", Maybe(&Number)),
    ("min_allowed_weights", Maybe(&Number)),
    ("max_weights_limit", Maybe(&Number)),
    ("weights_version", Maybe(&Number)),
    ("weights_rate_limit", Maybe(&Number)),
    ("activity_cutoff", Maybe(&Number)),
    ("max_validators", Maybe(&Number)),
    ("num_uids", Maybe(&Number)),
    ("immunity_period", Maybe(&Number)),
    ("commit_reveal_weights_enabled", Maybe(&Flag)),
    ("commit_reveal_period", Maybe(&Number)),
    ("hotkeys", Maybe(&List(&Account))),
    ("coldkeys", Maybe(&List(&Account))),
    ("active", Maybe(&List(&Flag))),
    ("validator_permit", Maybe(&List(&Flag))),
    ("last_update", Maybe(&NUMBERS)),
    ("emission", Maybe(&NUMBERS)),
    ("incentives", Maybe(&NUMBERS)),
    ("block_at_registration", Maybe(&NUMBERS)),
    ("total_stake", Maybe(&NUMBERS)),
    ("commitments", Maybe(&List(&Pair(&Account, &NUMBERS)))),
]);

/// Transaction extensions that carry data which this program knows how to fill.
const EXTENSIONS: [&str; 8] = [
    "CheckSpecVersion",
    "CheckTxVersion",
    "CheckGenesis",
    "CheckMortality",
    "CheckNonce",
    "ChargeTransactionPayment",
    "CheckMetadataHash",
    "VerifySignature",
];

/// What a runtime lacks or holds otherwise, one line each; empty when everything fits.
pub(super) fn misfits(metadata: &Metadata) -> Vec<String> {
    let mut found = Vec::new();
    storage(metadata, &mut found);
    calls(metadata, &mut found);
    events(metadata, &mut found);
    apis(metadata, &mut found);
    extensions(metadata, &mut found);
    found
}

fn storage(metadata: &Metadata, found: &mut Vec<String>) {
    for (pallet, name, keys, shape) in STORAGE {
        let entry = metadata
            .pallet_by_name(pallet)
            .and_then(|p| p.storage()?.entry_by_name(name));
        let Some(entry) = entry else {
            found.push(format!("storage {pallet}.{name} is gone"));
            continue;
        };
        let has = entry.keys().len();
        if has != *keys {
            found.push(format!(
                "storage {pallet}.{name} has {has} keys, not {keys}"
            ));
        }
        let place = format!("storage {pallet}.{name}");
        fit(metadata.types(), entry.value_ty(), *shape, &place, found);
    }
}

fn calls(metadata: &Metadata, found: &mut Vec<String>) {
    for (pallet, name, arguments) in CALLS {
        let variants = metadata.pallet_by_name(pallet);
        let variant = variants.as_ref().and_then(|p| p.call_variant_by_name(name));
        let Some(variant) = variant else {
            found.push(format!("call {pallet}.{name} is gone"));
            continue;
        };
        for field in &variant.fields {
            let field = field.name.as_deref().unwrap_or_default();
            if !arguments.iter().any(|(known, _)| *known == field) {
                found.push(format!("call {pallet}.{name} has a new argument {field}"));
            }
        }
        for (argument, shape) in *arguments {
            let field = variant
                .fields
                .iter()
                .find(|f| f.name.as_deref() == Some(argument));
            let place = format!("call {pallet}.{name} argument {argument}");
            match field {
                Some(field) => fit(metadata.types(), field.ty.id, *shape, &place, found),
                None => found.push(format!("{place} is gone")),
            }
        }
    }
}

fn events(metadata: &Metadata, found: &mut Vec<String>) {
    for (pallet, name) in EVENTS {
        let info = metadata.pallet_by_name(pallet);
        let variants = info.as_ref().and_then(|p| p.event_variants());
        if !variants.is_some_and(|all| all.iter().any(|v| v.name == *name)) {
            found.push(format!("event {pallet}.{name} is gone"));
        }
    }
}

fn apis(metadata: &Metadata, found: &mut Vec<String>) {
    for (api, name, arguments, shape) in APIS {
        let info = metadata.runtime_api_trait_by_name(api);
        let Some(method) = info.as_ref().and_then(|api| api.method_by_name(name)) else {
            found.push(format!("runtime call {api}.{name} is gone"));
            continue;
        };
        let place = format!("runtime call {api}.{name}");
        let has = method.inputs().len();
        if has != *arguments {
            found.push(format!("{place} has {has} arguments, not {arguments}"));
        }
        fit(metadata.types(), method.output_ty(), *shape, &place, found);
    }
}

/// An unknown extension is passed over while it carries nothing; one with data cannot be guessed.
fn extensions(metadata: &Metadata, found: &mut Vec<String>) {
    let types = metadata.types();
    let extrinsic = metadata.extrinsic();
    for extension in extrinsic.transaction_extensions_to_use_for_encoding() {
        let name = extension.identifier();
        let empty =
            is_empty(types, extension.extra_ty()) && is_empty(types, extension.additional_ty());
        if !empty && !EXTENSIONS.contains(&name) {
            found.push(format!("transaction extension {name} carries unknown data"));
        }
    }
}

fn is_empty(types: &PortableRegistry, ty: u32) -> bool {
    match types.resolve(ty).map(|ty| &ty.type_def) {
        Some(TypeDef::Composite(c)) => c.fields.iter().all(|f| is_empty(types, f.ty.id)),
        Some(TypeDef::Tuple(t)) => t.fields.iter().all(|f| is_empty(types, f.id)),
        Some(TypeDef::Array(a)) => a.len == 0,
        _ => false,
    }
}

/// The type inside newtypes: structs and tuples of one field, compact forms.
fn inner(types: &PortableRegistry, mut ty: u32) -> Option<&scale_info::Type<PortableForm>> {
    // Real nesting is two or three deep; a cycle in hostile metadata ends here.
    for _ in 0..16 {
        let info = types.resolve(ty)?;
        ty = match &info.type_def {
            TypeDef::Composite(c) if c.fields.len() == 1 => c.fields[0].ty.id,
            TypeDef::Tuple(t) if t.fields.len() == 1 => t.fields[0].id,
            TypeDef::Compact(c) => c.type_param.id,
            _ => return Some(info),
        };
    }
    None
}

fn fit(types: &PortableRegistry, ty: u32, shape: Shape, place: &str, found: &mut Vec<String>) {
    if let Fields(fields) = shape {
        return fit_fields(types, ty, fields, place, found);
    }
    let good =
        matches!(shape, Any) || inner(types, ty).is_some_and(|i| is(types, i, shape, place, found));
    if !good {
        let is = types
            .resolve(ty)
            .map_or_else(|| "unknown".to_owned(), describe);
        found.push(format!("{place} is {is}, not {shape:?}"));
    }
}

fn is(
    types: &PortableRegistry,
    info: &scale_info::Type<PortableForm>,
    shape: Shape,
    place: &str,
    found: &mut Vec<String>,
) -> bool {
    match (shape, &info.type_def) {
        (Any, _) => true,
        (Number, TypeDef::Primitive(p)) => matches!(
            p,
            TypeDefPrimitive::U8
                | TypeDefPrimitive::U16
                | TypeDefPrimitive::U32
                | TypeDefPrimitive::U64
                | TypeDefPrimitive::U128
        ),
        (Flag, TypeDef::Primitive(p)) => *p == TypeDefPrimitive::Bool,
        (Account, TypeDef::Array(a)) => a.len == 32,
        (List(of), TypeDef::Sequence(s)) => {
            fit(types, s.type_param.id, *of, place, found);
            true
        }
        (Maybe(of), TypeDef::Variant(v)) => {
            let some = v.variants.iter().find(|v| v.name == "Some");
            let Some(field) = some.and_then(|s| s.fields.first()) else {
                return false;
            };
            fit(types, field.ty.id, *of, place, found);
            true
        }
        (Pair(a, b), TypeDef::Tuple(t)) if t.fields.len() == 2 => {
            fit(types, t.fields[0].id, *a, place, found);
            fit(types, t.fields[1].id, *b, place, found);
            true
        }
        _ => false,
    }
}

fn fit_fields(
    types: &PortableRegistry,
    ty: u32,
    fields: &[(&str, Shape)],
    place: &str,
    found: &mut Vec<String>,
) {
    let Some(TypeDef::Composite(composite)) = types.resolve(ty).map(|t| &t.type_def) else {
        found.push(format!("{place} is no struct"));
        return;
    };
    for (name, shape) in fields {
        let field = composite
            .fields
            .iter()
            .find(|f| f.name.as_deref() == Some(name));
        let place = format!("{place} field {name}");
        match field {
            Some(field) => fit(types, field.ty.id, *shape, &place, found),
            None => found.push(format!("{place} is gone")),
        }
    }
}

fn describe(ty: &scale_info::Type<PortableForm>) -> String {
    if !ty.path.segments.is_empty() {
        return ty.path.segments.join("::");
    }
    match &ty.type_def {
        TypeDef::Primitive(p) => format!("{p:?}"),
        TypeDef::Sequence(_) => "a list".to_owned(),
        TypeDef::Array(a) => format!("{} of something", a.len),
        TypeDef::Tuple(t) => format!("a tuple of {}", t.fields.len()),
        other => format!("{other:?}").chars().take(40).collect(),
    }
}

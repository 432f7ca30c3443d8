//! Carrying out calls: origin, fee, the pallet's own checks, and the outcome's events.

use super::account;
use super::error::DevChainError;
use super::extrinsic::{Call, Invalid, Signed, Site};
use super::storage::{Writer, account as account_value, number};
use super::{admin, commitments, registration, weights};
use scale_decode::DecodeAsType;
use scale_value::Value;

/// Flat fee in rao where the runtime would weigh the call.
const FEE: u64 = 150_000;

/// Why a call failed in its block (`DispatchError`).
#[derive(Debug)]
pub(super) enum Failure {
    /// An error of a pallet, by names.
    Module(&'static str, &'static str),
    /// The origin may not do this.
    BadOrigin,
    /// This chain does not carry out the call: shown as `System.CallFiltered`.
    Unsupported(String),
    /// A fault of this chain.
    Bug(DevChainError),
}

impl From<DevChainError> for Failure {
    fn from(error: DevChainError) -> Self {
        Self::Bug(error)
    }
}

/// What a dispatched call says.
pub(super) type Outcome = Result<(), Failure>;

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Signed([u8; 32]),
    Root,
}

impl Origin {
    pub(super) fn signer(self) -> Result<[u8; 32], Failure> {
        match self {
            Self::Signed(who) => Ok(who),
            Self::Root => Err(Failure::BadOrigin),
        }
    }
}

/// An argument of a call by name; the metadata promises it, so its absence is a fault of ours.
pub(super) fn argument<T: DecodeAsType>(
    writer: &Writer<'_>,
    call: &Call,
    name: &str,
) -> Result<T, DevChainError> {
    let what = || format!("{} argument {name}", call.path());
    let (ty, bytes) = call
        .raw(name)
        .ok_or_else(|| DevChainError::decode(what(), "this runtime's call has no such argument"))?;
    writer.runtime.decode(&what(), ty, bytes)
}

fn is_sudo(call: &Call) -> bool {
    call.pallet == "Sudo"
}

/// Whether a fee is reserved before the call runs.
fn pays_fee(call: &Call) -> bool {
    match (call.pallet.as_str(), call.name.as_str()) {
        ("Commitments", "set_commitment") => false,
        (super::storage::SUBTENSOR, name) => {
            !(weights::is_weights_call(name) || name.ends_with("register"))
        }
        _ => true,
    }
}

/// The checks of the transaction extensions besides signature and nonce order, in their order.
pub(super) fn validate(
    signed: &Signed,
    site: &Site<'_>,
) -> Result<Result<(), Invalid>, DevChainError> {
    if let Err(invalid) = signed.check_signature(site) {
        return Ok(Err(invalid));
    }
    let account = account::read(&site.reader, &signed.who)?;
    if signed.nonce < account.nonce {
        return Ok(Err(Invalid::Stale));
    }
    let pays = pays_fee(&signed.call);
    if pays && (!account.exists() || account.data.free < FEE) {
        return Ok(Err(Invalid::Payment));
    }
    if is_sudo(&signed.call) {
        let key: Option<[u8; 32]> = site.reader.get("Sudo", "Key", &[])?;
        if key != Some(signed.who) {
            return Ok(Err(Invalid::BadSigner));
        }
    }
    weights::guard(
        &site.reader,
        &signed.who,
        &signed.call,
        site.head_number + 1,
    )
}

/// Applies a validated extrinsic: nonce, fee, call, events. Its own failure is an event, not an
/// error.
pub(super) fn apply(
    writer: &mut Writer<'_>,
    signed: &Signed,
    block: u64,
) -> Result<(), DevChainError> {
    let mut account = account::read(&writer.read(), &signed.who)?;
    account.nonce += 1;
    account::write(writer, &signed.who, account)?;
    let fee = if pays_fee(&signed.call) { FEE } else { 0 };
    if fee > 0 {
        account::withdraw(writer, &signed.who, fee)?;
        balance_event(writer, "Withdraw", &signed.who, fee)?;
    }
    let (mark, events) = (writer.state.mark(), writer.events.len());
    let outcome = dispatch(writer, Origin::Signed(signed.who), &signed.call, block);
    let refund = fee > 0 && is_sudo(&signed.call) && outcome.is_ok();
    if outcome.is_err() {
        writer.state.rollback(mark);
        writer.events.truncate(events);
    }
    if refund {
        account::deposit(writer, &signed.who, fee)?;
        balance_event(writer, "Deposit", &signed.who, fee)?;
    }
    let paid = if refund { 0 } else { fee };
    let fields = vec![
        ("who", account_value(&signed.who)),
        ("actual_fee", number(paid)),
        ("tip", number(0u8)),
    ];
    writer.emit("TransactionPayment", "TransactionFeePaid", fields)?;
    let info = dispatch_info("Normal", paid > 0);
    match outcome {
        Ok(()) => writer.emit("System", "ExtrinsicSuccess", vec![("dispatch_info", info)]),
        Err(failure) => {
            let error = dispatch_error(writer, &signed.call, &failure);
            let fields = vec![("dispatch_error", error), ("dispatch_info", info)];
            writer.emit("System", "ExtrinsicFailed", fields)
        }
    }
}

fn balance_event(
    writer: &mut Writer<'_>,
    event: &str,
    who: &[u8; 32],
    amount: u64,
) -> Result<(), DevChainError> {
    let fields = vec![("who", account_value(who)), ("amount", number(amount))];
    writer.emit("Balances", event, fields)
}

/// `DispatchInfo`; weights are not modelled and read 0.
pub(super) fn dispatch_info(class: &str, pays: bool) -> Value {
    let weight =
        Value::named_composite([("ref_time", Value::u128(0)), ("proof_size", Value::u128(0))]);
    let variant = |name: &str| Value::unnamed_variant(name.to_owned(), []);
    Value::named_composite([
        ("weight", weight),
        ("class", variant(class)),
        ("pays_fee", variant(if pays { "Yes" } else { "No" })),
    ])
}

fn dispatch_error(writer: &Writer<'_>, call: &Call, failure: &Failure) -> Value {
    let (pallet, error) = match failure {
        Failure::Module(pallet, error) => (*pallet, *error),
        Failure::BadOrigin => return Value::unnamed_variant("BadOrigin", []),
        Failure::Unsupported(why) => {
            tracing::warn!(call = %call.path(), why, "call not carried out");
            ("System", "CallFiltered")
        }
        Failure::Bug(error) => {
            tracing::error!(call = %call.path(), %error, "call failed by a fault of the dev chain");
            return Value::unnamed_variant("Corruption", []);
        }
    };
    let Some((index, bytes)) = writer.runtime.module_error(pallet, error) else {
        tracing::warn!(pallet, error, "this runtime does not know the error");
        return Value::unnamed_variant("Other", []);
    };
    let module = Value::named_composite([
        ("index", Value::u128(index.into())),
        ("error", Value::from_bytes(bytes)),
    ]);
    Value::unnamed_variant("Module", [module])
}

/// Runs one call. The caller rolls back on failure.
pub(super) fn dispatch(
    writer: &mut Writer<'_>,
    origin: Origin,
    call: &Call,
    block: u64,
) -> Outcome {
    match (call.pallet.as_str(), call.name.as_str()) {
        ("Commitments", "set_commitment") => commitments::set(writer, origin, call, block),
        (super::storage::SUBTENSOR, name) if weights::is_weights_call(name) => {
            weights::dispatch(writer, origin, call, block)
        }
        (super::storage::SUBTENSOR, "burned_register") => {
            registration::burned_register(writer, origin, call, block)
        }
        ("Sudo", "sudo" | "sudo_unchecked_weight") => sudo(writer, origin, call, block),
        ("AdminUtils", _) => admin::dispatch(writer, origin, call),
        ("System", "set_storage") => admin::set_storage(writer, origin, call),
        ("System", "remark") => origin.signer().map(|_| ()),
        _ => Err(Failure::Unsupported(
            "the dev chain knows commitments, weights, registration and administration".to_owned(),
        )),
    }
}

fn sudo(writer: &mut Writer<'_>, origin: Origin, call: &Call, block: u64) -> Outcome {
    let who = origin.signer()?;
    let key: Option<[u8; 32]> = writer.read().get("Sudo", "Key", &[])?;
    if key != Some(who) {
        return Err(Failure::Module("Sudo", "RequireSudo"));
    }
    let (_, bytes) = call
        .raw("call")
        .ok_or_else(|| DevChainError::decode("Sudo.sudo", "no argument call"))?;
    let inner = Call::decode(writer.runtime, bytes)
        .map_err(|reason| DevChainError::decode("the call inside Sudo.sudo", reason))?;
    let (mark, events) = (writer.state.mark(), writer.events.len());
    let outcome = dispatch(writer, Origin::Root, &inner, block);
    let result = match &outcome {
        Ok(()) => Value::unnamed_variant("Ok", [Value::unnamed_composite([])]),
        Err(failure) => {
            writer.state.rollback(mark);
            writer.events.truncate(events);
            Value::unnamed_variant("Err", [dispatch_error(writer, &inner, failure)])
        }
    };
    writer.emit("Sudo", "Sudid", vec![("sudo_result", result)])?;
    Ok(())
}

//! The commitments pallet's `Data` and `Registration`.

use super::connect::ChainClient;
use super::error::ChainError;
use super::view::{Entry, View, all_used};
use crate::bittensor::{BlockNumber, BlockRef, Commitment, CommitmentField, Hotkey, Netuid};
use scale_decode::DecodeAsType;
use scale_value::{Composite, Primitive, Value, ValueDef};

pub(super) const COMMITMENT_OF: Entry = Entry("Commitments", "CommitmentOf");

/// Longest text of one `Raw` field.
const RAW_LIMIT: usize = 128;
/// Longest text of one `BigRaw` field.
const BIG_RAW_LIMIT: usize = 512;

/// The stored form; the deposit is always 0 and not read.
#[derive(DecodeAsType)]
struct Registration {
    block: u32,
    info: CommitmentInfo,
}

#[derive(DecodeAsType)]
struct CommitmentInfo {
    fields: Vec<Value<()>>,
}

impl ChainClient {
    /// The latest commitment of `hotkey` at that block, read back from storage; `None` when the
    /// chain holds none. Two requests.
    ///
    /// # Errors
    /// Any [`ChainError`]; never `None` for a failed read.
    pub async fn commitment(
        &self,
        at: BlockRef,
        netuid: Netuid,
        hotkey: &Hotkey,
    ) -> Result<Option<Commitment>, ChainError> {
        self.read("reading a commitment", async {
            let view = self.view(at).await?;
            let key = view.key(COMMITMENT_OF, (netuid.0, hotkey.0))?;
            let Some(stored) = view.value(&key).await? else {
                return Ok(None);
            };
            decode(&view, *hotkey, &stored).map(Some)
        })
        .await
    }
}

/// Decodes a stored `Registration`, which is also what the metagraph's commitments field holds.
pub(super) fn decode(view: &View, hotkey: Hotkey, stored: &[u8]) -> Result<Commitment, ChainError> {
    let what = format!("the commitment of {hotkey}");
    let metadata = view.metadata();
    let declared = metadata
        .pallet_by_name(COMMITMENT_OF.0)
        .and_then(|p| p.storage()?.entry_by_name(COMMITMENT_OF.1))
        .ok_or_else(|| ChainError::unreadable(&what, "this runtime stores no commitments"))?;
    let rest = &mut &*stored;
    let read = Registration::decode_as_type(rest, declared.value_ty(), metadata.types())
        .map_err(|e| ChainError::unreadable(&what, e))?;
    all_used(&what, rest)?;
    let fields: Option<Vec<_>> = read.info.fields.into_iter().map(field).collect();
    Ok(Commitment {
        hotkey,
        block: BlockNumber(read.block.into()),
        fields: fields.ok_or_else(|| ChainError::unreadable(&what, "a field of unknown shape"))?,
    })
}

/// `Raw0` … `Raw128` and `BigRaw` are bytes; everything else is known by its name alone.
fn field(data: Value<()>) -> Option<CommitmentField> {
    let ValueDef::Variant(variant) = data.value else {
        return None;
    };
    let length = variant.name.strip_prefix("Raw");
    let raw = length.is_some_and(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_digit()));
    if !raw && variant.name != "BigRaw" {
        return Some(CommitmentField::Other(variant.name));
    }
    let mut bytes = Vec::new();
    variant
        .values
        .values()
        .try_for_each(|value| append_bytes(value, &mut bytes))?;
    Some(CommitmentField::Raw(bytes))
}

fn append_bytes(value: &Value<()>, bytes: &mut Vec<u8>) -> Option<()> {
    match &value.value {
        ValueDef::Primitive(Primitive::U128(byte)) => bytes.push(u8::try_from(*byte).ok()?),
        ValueDef::Composite(inner) => {
            for value in inner.values() {
                append_bytes(value, bytes)?;
            }
        }
        _ => return None,
    }
    Some(())
}

/// The `info` argument of `set_commitment` for one text: `Raw{n}` up to 128 bytes, `BigRaw` up to
/// 512, `None` beyond.
pub(super) fn info(text: &str) -> Option<Value<()>> {
    let name = match text.len() {
        n if n <= RAW_LIMIT => format!("Raw{n}"),
        n if n <= BIG_RAW_LIMIT => "BigRaw".to_owned(),
        _ => return None,
    };
    let data = Value::unnamed_variant(name, [Value::from_bytes(text.as_bytes())]);
    let fields = Value::unnamed_composite([data]);
    Some(Value::without_context(ValueDef::Composite(
        Composite::Named(vec![("fields".to_owned(), fields)]),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_field(value: Value<()>) -> Option<CommitmentField> {
        let ValueDef::Composite(info) = value.value else {
            return None;
        };
        let fields = info.into_values().next()?;
        let ValueDef::Composite(fields) = fields.value else {
            return None;
        };
        field(fields.into_values().next()?)
    }

    #[test]
    fn the_variant_follows_the_length() {
        for length in [0, 1, 128, 129, 512] {
            let text = "a".repeat(length);
            let read = one_field(info(&text).unwrap());
            assert_eq!(
                read,
                Some(CommitmentField::Raw(text.into_bytes())),
                "{length}"
            );
        }
        assert!(info(&"a".repeat(513)).is_none());
        assert!(format!("{:?}", info(&"a".repeat(129)).unwrap()).contains("BigRaw"));
        assert!(format!("{:?}", info(&"a".repeat(128)).unwrap()).contains("Raw128"));
    }

    #[test]
    fn other_variants_keep_their_name() {
        let sha = Value::unnamed_variant("Sha256", [Value::from_bytes([1; 32])]);
        assert_eq!(field(sha), Some(CommitmentField::Other("Sha256".into())));
        let odd = Value::unnamed_variant("RawMaterial", []);
        assert_eq!(
            field(odd),
            Some(CommitmentField::Other("RawMaterial".into()))
        );
        assert_eq!(field(Value::u128(1)), None);
        let wide = Value::unnamed_variant("Raw1", [Value::u128(256)]);
        assert_eq!(field(wide), None);
    }
}

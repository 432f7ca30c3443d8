//! What a miner wrote into the commitments pallet.

use super::{BlockNumber, Hotkey};

/// One field of a commitment (`Data` of the commitments pallet).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitmentField {
    /// `Raw0` … `Raw128` or `BigRaw`: bytes as the miner sent them.
    Raw(Vec<u8>),
    /// Any other variant, by its name in the metadata (`None`, `Sha256`, `TimelockEncrypted` …).
    Other(String),
}

/// The latest commitment of one account on one subnet (`CommitmentOf`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commitment {
    /// Signer; registered at commit time, not necessarily now.
    pub hotkey: Hotkey,
    /// Block that included it. Every repeated call moves it, an identical one too.
    pub block: BlockNumber,
    /// Fields in chain order, at most three.
    pub fields: Vec<CommitmentField>,
}

/// Why a commitment holds no text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitmentTextError {
    /// No field at all, or only empty ones.
    #[error("the commitment is empty")]
    Empty,
    /// A field that is not raw bytes.
    #[error("the commitment holds a {0} field; only raw text is read")]
    NotRaw(String),
    /// Bytes that are not UTF-8.
    #[error("the commitment is not UTF-8 text")]
    NotUtf8,
}

impl Commitment {
    /// The raw fields joined in order, as text. The text is the miner's and hostile.
    ///
    /// # Errors
    /// [`CommitmentTextError`] when a field is not raw, the bytes are not UTF-8, or nothing is there.
    pub fn text(&self) -> Result<String, CommitmentTextError> {
        let mut bytes = Vec::new();
        for field in &self.fields {
            match field {
                CommitmentField::Raw(raw) => bytes.extend_from_slice(raw),
                CommitmentField::Other(name) => {
                    return Err(CommitmentTextError::NotRaw(name.clone()));
                }
            }
        }
        if bytes.is_empty() {
            return Err(CommitmentTextError::Empty);
        }
        String::from_utf8(bytes).map_err(|_| CommitmentTextError::NotUtf8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commitment(fields: Vec<CommitmentField>) -> Commitment {
        Commitment {
            hotkey: Hotkey([1; 32]),
            block: BlockNumber(5),
            fields,
        }
    }

    #[test]
    fn raw_fields_are_joined_in_order() {
        let fields = vec![
            CommitmentField::Raw(b"abc".into()),
            CommitmentField::Raw(b"def".into()),
        ];
        assert_eq!(commitment(fields).text().unwrap(), "abcdef");
    }

    #[test]
    fn what_is_no_text_is_said() {
        assert_eq!(commitment(vec![]).text(), Err(CommitmentTextError::Empty));
        let bytes = vec![CommitmentField::Raw(vec![0xff, 0x00, 0xfe, 0x01])];
        assert_eq!(commitment(bytes).text(), Err(CommitmentTextError::NotUtf8));
        let sha = vec![CommitmentField::Other("Sha256".into())];
        assert_eq!(
            commitment(sha).text(),
            Err(CommitmentTextError::NotRaw("Sha256".into()))
        );
    }
}

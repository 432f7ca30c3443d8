//! `System.Account`: nonces and free balances.

use super::error::DevChainError;
use super::runtime::Key;
use super::storage::{Reader, Writer};
use scale_decode::DecodeAsType;
use scale_encode::EncodeAsType;

/// The high bit of `AccountData.flags`: the account follows the new balance logic.
const NEW_LOGIC: u128 = 1 << 127;

#[derive(Debug, Clone, Default, DecodeAsType, EncodeAsType)]
pub(super) struct Account {
    pub(super) nonce: u32,
    pub(super) consumers: u32,
    pub(super) providers: u32,
    pub(super) sufficients: u32,
    pub(super) data: AccountData,
}

/// Balances in rao, 10⁻⁹ TAO.
#[derive(Debug, Clone, Default, DecodeAsType, EncodeAsType)]
pub(super) struct AccountData {
    pub(super) free: u64,
    pub(super) reserved: u64,
    pub(super) frozen: u64,
    pub(super) flags: u128,
}

impl Account {
    /// Whether the account exists for paying: its provider or sufficient reference.
    pub(super) fn exists(&self) -> bool {
        self.providers > 0 || self.sufficients > 0
    }
}

pub(super) fn read(reader: &Reader<'_>, who: &[u8; 32]) -> Result<Account, DevChainError> {
    reader.or_default("System", "Account", &[Key::Account(*who)])
}

/// Writes `who`'s account; a free balance gives it its provider reference.
pub(super) fn write(
    writer: &mut Writer<'_>,
    who: &[u8; 32],
    mut account: Account,
) -> Result<(), DevChainError> {
    account.data.flags = NEW_LOGIC;
    if account.data.free > 0 {
        account.providers = account.providers.max(1);
    }
    writer.put("System", "Account", &[Key::Account(*who)], &account)
}

/// Adds `amount` rao to the free balance.
pub(super) fn deposit(
    writer: &mut Writer<'_>,
    who: &[u8; 32],
    amount: u64,
) -> Result<(), DevChainError> {
    let mut account = read(&writer.read(), who)?;
    account.data.free = account.data.free.saturating_add(amount);
    write(writer, who, account)
}

/// Takes `amount` rao; `false`, and nothing done, when the free balance is smaller.
pub(super) fn withdraw(
    writer: &mut Writer<'_>,
    who: &[u8; 32],
    amount: u64,
) -> Result<bool, DevChainError> {
    let mut account = read(&writer.read(), who)?;
    let Some(rest) = account.data.free.checked_sub(amount) else {
        return Ok(false);
    };
    account.data.free = rest;
    write(writer, who, account)?;
    Ok(true)
}

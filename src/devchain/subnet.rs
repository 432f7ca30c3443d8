//! Reads of a subnet that several pallets' rules share.

use super::error::DevChainError;
use super::runtime::Key;
use super::storage::{Reader, SUBTENSOR};

/// `NetUidStorageIndex`.
pub(super) fn storage_index(netuid: u16, mechanism: u8) -> u16 {
    u16::from(mechanism).wrapping_mul(4096).wrapping_add(netuid)
}

impl Reader<'_> {
    pub(super) fn subnet_exists(&self, netuid: u16) -> Result<bool, DevChainError> {
        self.subnet("NetworksAdded", netuid)
    }

    pub(super) fn mechanism_exists(&self, netuid: u16, id: u8) -> Result<bool, DevChainError> {
        Ok(id < self.mechanisms(netuid)?)
    }

    /// How many mechanisms there are, at least 1.
    pub(super) fn mechanisms(&self, netuid: u16) -> Result<u8, DevChainError> {
        let count: u8 = self.subnet("MechanismCountCurrent", netuid)?;
        Ok(count.max(1))
    }

    pub(super) fn uid(&self, netuid: u16, hotkey: &[u8; 32]) -> Result<Option<u16>, DevChainError> {
        self.get(
            SUBTENSOR,
            "Uids",
            &[Key::U16(netuid), Key::Account(*hotkey)],
        )
    }

    pub(super) fn hotkey(&self, netuid: u16, uid: u16) -> Result<[u8; 32], DevChainError> {
        self.or_default(SUBTENSOR, "Keys", &[Key::U16(netuid), Key::U16(uid)])
    }

    pub(super) fn coldkey(&self, hotkey: &[u8; 32]) -> Result<[u8; 32], DevChainError> {
        self.or_default(SUBTENSOR, "Owner", &[Key::Account(*hotkey)])
    }

    pub(super) fn registered_at(&self, netuid: u16, uid: u16) -> Result<u64, DevChainError> {
        let keys = [Key::U16(netuid), Key::U16(uid)];
        self.or_default(SUBTENSOR, "BlockAtRegistration", &keys)
    }

    /// Alpha staked on `hotkey` in the subnet, in rao.
    pub(super) fn alpha_stake(&self, netuid: u16, hotkey: &[u8; 32]) -> Result<u64, DevChainError> {
        let keys = [Key::Account(*hotkey), Key::U16(netuid)];
        self.or_default(SUBTENSOR, "TotalHotkeyAlpha", &keys)
    }

    /// Root stake's part of the subnet's stake: root TAO × `TaoWeight` / 2⁶⁴, in rao.
    pub(super) fn tao_stake(&self, hotkey: &[u8; 32]) -> Result<u64, DevChainError> {
        let root = self.alpha_stake(0, hotkey)?;
        let weight: u64 = self.or_default(SUBTENSOR, "TaoWeight", &[])?;
        let scaled = (u128::from(root) * u128::from(weight)) >> 64;
        Ok(u64::try_from(scaled).unwrap_or(u64::MAX))
    }

    /// What is compared with `StakeThreshold`: alpha plus weighted root TAO. Parent and child
    /// keys are not modelled.
    pub(super) fn total_stake(&self, netuid: u16, hotkey: &[u8; 32]) -> Result<u64, DevChainError> {
        let alpha = self.alpha_stake(netuid, hotkey)?;
        Ok(alpha.saturating_add(self.tao_stake(hotkey)?))
    }

    pub(super) fn owner_hotkey(&self, netuid: u16) -> Result<[u8; 32], DevChainError> {
        self.subnet("SubnetOwnerHotkey", netuid)
    }

    /// The uid that is exempt from stake and permit rules.
    pub(super) fn owner_uid(&self, netuid: u16) -> Result<Option<u16>, DevChainError> {
        self.uid(netuid, &self.owner_hotkey(netuid)?)
    }

    /// Blocks during which a neuron counts as active after its last update.
    pub(super) fn activity_cutoff(&self, netuid: u16) -> Result<u64, DevChainError> {
        let key = [Key::U16(netuid)];
        if let Some(factor) = self.get::<u32>(SUBTENSOR, "ActivityCutoffFactorMilli", &key)? {
            let tempo: u16 = self.subnet("Tempo", netuid)?;
            return Ok(u64::from(factor) * u64::from(tempo) / 1000);
        }
        Ok(u64::from(self.subnet::<u16>("ActivityCutoff", netuid)?))
    }
}

//! The GPUs of this host, as the driver's library (NVML) sees them, by UUID: an index may name another
//! card after a restart.

mod health;

pub use health::{Look, Trouble, after, before};

use crate::fault::{Fault, Party};
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::{NvmlError, NvmlErrorWithSource};
use nvml_wrapper::{Device, EventSet, Nvml};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The driver's version; `None` where there is no driver. It only changes with the process.
#[must_use]
pub fn driver() -> Option<String> {
    nvml().ok()?.sys_driver_version().ok()
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// The driver's lasting name of it, `GPU-…`.
    pub uuid: String,
    /// Its model.
    pub name: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

/// The driver's library, opened once per process; why it could not be, on a host without GPUs.
fn nvml() -> Result<&'static Nvml, Fault> {
    static NVML: OnceLock<Result<Nvml, String>> = OnceLock::new();
    let opened = NVML.get_or_init(|| Nvml::init().map_err(|e| e.to_string()));
    opened.as_ref().map_err(|why| {
        let text = format!("the GPU driver's library cannot be used: {why}; check nvidia-smi");
        Fault::retryable(Party::Gpu, "GPU_DRIVER", text)
    })
}

fn trouble(doing: &str) -> impl Fn(NvmlError) -> Fault {
    move |error| {
        let text = format!("{doing}: {error}; check nvidia-smi and the kernel's log");
        Fault::retryable(Party::Gpu, "GPU_DRIVER", text)
    }
}

/// The GPUs of this host, in the driver's order, and the driver's version.
///
/// # Errors
/// A `GPU_DRIVER` fault: no driver, or one that does not answer.
pub fn inventory() -> Result<(Vec<Gpu>, String), Fault> {
    let nvml = nvml()?;
    let failed = trouble("listing the GPUs");
    let count = nvml.device_count().map_err(&failed)?;
    let gpus = (0..count).map(|index| describe(&nvml.device_by_index(index)?));
    let gpus = gpus.collect::<Result<_, _>>().map_err(&failed)?;
    Ok((gpus, nvml.sys_driver_version().map_err(&failed)?))
}

fn describe(device: &Device<'_>) -> Result<Gpu, NvmlError> {
    Ok(Gpu {
        uuid: device.uuid()?,
        name: device.name()?,
        memory_bytes: device.memory_info()?.total,
    })
}

/// Watches the GPUs of one worker. Empty on a CPU worker, where everything is well.
pub struct Gate {
    uuids: Vec<String>,
    /// Collects what the driver reports as critical from the moment of its making.
    xids: Option<Mutex<EventSet<'static>>>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("uuids", &self.uuids)
            .finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate before these GPUs, all of which must be there.
    ///
    /// # Errors
    /// A `GPU_DRIVER` fault that names the one that is not there.
    pub fn new(uuids: &[String]) -> Result<Self, Fault> {
        if uuids.is_empty() {
            return Ok(Self {
                uuids: Vec::new(),
                xids: None,
            });
        }
        let nvml = nvml()?;
        let failed = trouble("listening for the driver's errors");
        let mut set = nvml.create_event_set().map_err(failed)?;
        for uuid in uuids {
            let device = find(nvml, uuid)?;
            set = match device.register_events(EventTypes::CRITICAL_XID_ERROR, set) {
                Ok(set) => set,
                // Some cards report none; their other readings still count.
                Err(NvmlErrorWithSource {
                    error: NvmlError::NotSupported,
                    ..
                }) => nvml
                    .create_event_set()
                    .map_err(trouble("listening for the driver's errors"))?,
                Err(error) => {
                    return Err(trouble("listening for the driver's errors")(error.error));
                }
            };
        }
        Ok(Self {
            uuids: uuids.to_vec(),
            xids: Some(Mutex::new(set)),
        })
    }

    /// Every GPU's state now, in the order of their UUIDs. Blocks for a few driver calls.
    ///
    /// # Errors
    /// A `GPU_DRIVER` fault.
    pub fn look(&self) -> Result<Vec<Look>, Fault> {
        let xids = self.xids()?;
        let looks = self.uuids.iter().map(|uuid| look_at(uuid, &xids));
        looks.collect()
    }

    /// The newest critical error of each GPU since the last question.
    fn xids(&self) -> Result<HashMap<String, u64>, Fault> {
        let mut newest = HashMap::new();
        let Some(xids) = &self.xids else {
            return Ok(newest);
        };
        let failed = trouble("reading the driver's errors");
        let set = xids.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let event = match set.wait(0) {
                Ok(event) => event,
                Err(NvmlError::Timeout) => return Ok(newest),
                Err(error) => return Err(failed(error)),
            };
            let number = match event.event_data {
                Some(XidError::Value(number)) => number,
                Some(XidError::Unknown) | None => 0,
            };
            newest.insert(event.device.uuid().map_err(&failed)?, number);
        }
    }
}

fn look_at(uuid: &str, xids: &HashMap<String, u64>) -> Result<Look, Fault> {
    let device = find(nvml()?, uuid)?;
    let failed = trouble(uuid);
    let memory = device.memory_info().map_err(&failed)?;
    let ecc = device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile);
    let processes = device.running_compute_processes().map_err(&failed)?;
    Ok(Look {
        uuid: uuid.to_owned(),
        total_bytes: memory.total,
        free_bytes: memory.free,
        reserved_bytes: memory.reserved,
        uncorrected_ecc: match ecc {
            Ok(count) => Some(count),
            Err(NvmlError::NotSupported) => None,
            Err(error) => return Err(failed(error)),
        },
        processes: processes.len(),
        xid: xids.get(uuid).copied(),
    })
}

fn find(nvml: &'static Nvml, uuid: &str) -> Result<Device<'static>, Fault> {
    let absent = format!("there is no {uuid} on this host; `assay check` lists those that are");
    nvml.device_by_uuid(uuid).map_err(|error| match error {
        NvmlError::NotFound | NvmlError::InvalidArg => {
            Fault::retryable(Party::Gpu, "GPU_MISSING", absent)
        }
        error => trouble(uuid)(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_worker_needs_no_driver() {
        let gate = Gate::new(&[]).unwrap();
        assert_eq!(gate.look().unwrap(), []);
    }

    #[test]
    fn a_card_that_is_not_there_is_named_as_the_gpus_fault() {
        let fault =
            Gate::new(&["GPU-00000000-0000-0000-0000-000000000000".to_owned()]).unwrap_err();
        assert_eq!(fault.party, Party::Gpu);
        assert!(fault.retryable);
    }
}

//! Whether a GPU may be used, from what the driver says of it. Pure.

use crate::fault::{Fault, Party};

/// Share of the memory that must be free before a job.
const FREE_MIN: f64 = 0.97;
/// Memory that may still be taken after a job: a driver keeps some of it for a while.
const LEFT_MAX_BYTES: u64 = 1 << 30;

/// One GPU's state at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The driver's name of it.
    pub uuid: String,
    /// Memory in bytes.
    pub total_bytes: u64,
    /// Memory that nobody holds.
    pub free_bytes: u64,
    /// Memory that the driver holds for itself, neither free nor a program's.
    pub reserved_bytes: u64,
    /// Memory errors that could not be corrected, since the driver was loaded; `None` without ECC.
    pub uncorrected_ecc: Option<u64>,
    /// Processes that compute on it.
    pub processes: usize,
    /// A critical error that the driver reported since the last look.
    pub xid: Option<u64>,
}

impl Look {
    fn taken_bytes(&self) -> u64 {
        let free = self.free_bytes.saturating_add(self.reserved_bytes);
        self.total_bytes.saturating_sub(free)
    }
}

/// Why a GPU may not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Somebody else holds memory.
    #[error("{taken_bytes} bytes of its memory are taken")]
    Taken {
        /// By others than the driver.
        taken_bytes: u64,
    },
    /// Somebody computes on it.
    #[error("{0} processes compute on it")]
    Processes(usize),
    /// Its memory lost bits.
    #[error("{0} memory errors could not be corrected; reset or replace it")]
    Ecc(u64),
    /// The driver reported a critical error.
    #[error("the driver reported Xid {0}; see the kernel's log")]
    Xid(u64),
}

impl Trouble {
    /// The fault of the GPU `uuid`.
    #[must_use]
    pub fn fault(self, uuid: &str) -> Fault {
        let code = match self {
            Self::Taken { .. } | Self::Processes(_) => "GPU_BUSY",
            Self::Ecc(_) => "GPU_ECC",
            Self::Xid(_) => "GPU_XID",
        };
        Fault::retryable(Party::Gpu, code, format_args!("{uuid}: {self}"))
    }
}

/// May a job begin on it: nobody computes there, at least 97 % of its memory is free, no uncorrected
/// memory error since the driver was loaded.
///
/// # Errors
/// The first [`Trouble`].
pub fn before(now: &Look) -> Result<(), Trouble> {
    if let Some(xid) = now.xid {
        return Err(Trouble::Xid(xid));
    }
    if let Some(errors) = now.uncorrected_ecc.filter(|n| *n > 0) {
        return Err(Trouble::Ecc(errors));
    }
    if now.processes > 0 {
        return Err(Trouble::Processes(now.processes));
    }
    let taken_bytes = now.taken_bytes();
    #[expect(clippy::cast_precision_loss, reason = "a share of some gigabytes")]
    let taken = taken_bytes as f64 / now.total_bytes.max(1) as f64;
    if taken > 1.0 - FREE_MIN {
        return Err(Trouble::Taken { taken_bytes });
    }
    Ok(())
}

/// Was it well while a job ran, and is it free again: no critical error, no new uncorrected memory
/// error since `begun`, no process left, less than 1 GiB taken.
///
/// # Errors
/// The first [`Trouble`]: what the job brought does not count.
pub fn after(begun: &Look, now: &Look) -> Result<(), Trouble> {
    if let Some(xid) = now.xid {
        return Err(Trouble::Xid(xid));
    }
    let errors = |look: &Look| look.uncorrected_ecc.unwrap_or(0);
    if errors(now) > errors(begun) {
        return Err(Trouble::Ecc(errors(now) - errors(begun)));
    }
    if now.processes > 0 {
        return Err(Trouble::Processes(now.processes));
    }
    let taken_bytes = now.taken_bytes();
    if taken_bytes >= LEFT_MAX_BYTES {
        return Err(Trouble::Taken { taken_bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle() -> Look {
        Look {
            uuid: "GPU-1".to_owned(),
            total_bytes: 80 << 30,
            free_bytes: 79 << 30,
            reserved_bytes: 1 << 29,
            uncorrected_ecc: Some(0),
            processes: 0,
            xid: None,
        }
    }

    #[test]
    fn an_idle_card_may_begin_and_a_used_one_may_not() {
        assert_eq!(before(&idle()), Ok(()));
        let cases = [
            (
                Look {
                    free_bytes: 76 << 30,
                    ..idle()
                },
                Trouble::Taken {
                    taken_bytes: (7 << 29),
                },
            ),
            (
                Look {
                    processes: 2,
                    ..idle()
                },
                Trouble::Processes(2),
            ),
            (
                Look {
                    uncorrected_ecc: Some(1),
                    ..idle()
                },
                Trouble::Ecc(1),
            ),
            (
                Look {
                    xid: Some(79),
                    ..idle()
                },
                Trouble::Xid(79),
            ),
        ];
        for (look, trouble) in cases {
            assert_eq!(before(&look), Err(trouble));
            assert_eq!(trouble.fault("GPU-1").party, Party::Gpu);
        }
        let without_ecc = Look {
            uncorrected_ecc: None,
            ..idle()
        };
        assert_eq!(before(&without_ecc), Ok(()));
    }

    #[test]
    fn what_a_job_brought_counts_and_what_was_there_does_not() {
        let old = Look {
            uncorrected_ecc: Some(3),
            ..idle()
        };
        assert_eq!(after(&old, &old), Ok(()));
        let worse = Look {
            uncorrected_ecc: Some(5),
            ..idle()
        };
        assert_eq!(after(&old, &worse), Err(Trouble::Ecc(2)));
        let kept = Look {
            free_bytes: 78 << 30,
            ..idle()
        };
        assert_eq!(
            after(&idle(), &kept),
            Err(Trouble::Taken {
                taken_bytes: 3 << 29
            })
        );
        let left = Look {
            processes: 1,
            ..idle()
        };
        assert_eq!(after(&idle(), &left), Err(Trouble::Processes(1)));
        let broke = Look {
            xid: Some(48),
            ..idle()
        };
        assert_eq!(after(&idle(), &broke), Err(Trouble::Xid(48)));
    }
}

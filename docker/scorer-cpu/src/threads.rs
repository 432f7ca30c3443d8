//! How many threads share the work.

use crate::failure::{Failure, OrFailure};
use assay_protocol::ResultCode;

/// Parameters from which sharing one product between threads gains more than waiting costs.
const LARGE_MODEL: u64 = 50_000_000;

/// Does `work`, all matrix products included, on one thread for a model of few `parameters` and on
/// all cores for a large one.
///
/// # Errors
/// `I_IO` when no thread can be started.
pub fn in_threads<T: Send>(parameters: u64, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    if parameters >= LARGE_MODEL {
        return Ok(work());
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let pool = pool.or_failure(ResultCode::Io, "starting a thread")?;
    Ok(pool.install(work))
}

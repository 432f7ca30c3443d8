//! Whatever our header parser accepts fills its file exactly, and the format's library accepts it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::admission::{Header, TensorInfo};

fuzz_target!(|data: &[u8]| {
    let size = data.len() as u64;
    let Ok(header) = Header::read(&mut &*data, size) else {
        return;
    };
    let bytes: u64 = header.tensors.iter().map(TensorInfo::bytes).sum();
    assert_eq!(header.data_start + bytes, size);
    let theirs = safetensors::SafeTensors::deserialize(data).expect("ours is the stricter one");
    assert_eq!(theirs.len(), header.tensors.len());
});

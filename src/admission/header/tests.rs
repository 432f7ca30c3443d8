use super::*;
use crate::admission::fixtures::{file, safetensors as save, tensors};
use proptest::prelude::*;

fn read(bytes: &[u8]) -> Result<Header, StreamError> {
    Header::read(&mut &*bytes, u64::try_from(bytes.len()).unwrap())
}

fn refused(bytes: &[u8]) -> Rejection {
    match read(bytes) {
        Err(StreamError::Rejected(rejection)) => rejection,
        other => panic!(
            "{other:?} for {:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(200)])
        ),
    }
}

fn entry(name: &str, shape: &str, begin: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

fn one(header: &str) -> Vec<u8> {
    file(&format!("{{{header}}}"), &[0; 8])
}

#[test]
fn a_good_header_is_read_in_the_order_of_its_data() {
    let header = read(&save(&tensors())).unwrap();
    assert_eq!(header.tensors.len(), tensors().len());
    assert_eq!(header.tensors[0].name, "model.embed_tokens.weight");
    assert!(header.data_start.is_multiple_of(8));
    let swapped = one(&format!(
        "{},{}",
        entry("b", "[1]", 4, 8),
        entry("a", "[1,1]", 0, 4)
    ));
    let names: Vec<_> = read(&swapped)
        .unwrap()
        .tensors
        .into_iter()
        .map(|t| t.name)
        .collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn what_the_library_accepts_and_we_do_not() {
    let spaces = file(
        &format!("{{{}}}{}", entry("a", "[2]", 0, 8), " ".repeat(9 << 20)),
        &[0; 8],
    );
    let twice = one(&format!(
        "{},{}",
        entry("a", "[2]", 0, 8),
        entry("a", "[2]", 0, 8)
    ));
    let empty = one(&format!(
        "{},{}",
        entry("a", "[0]", 0, 0),
        entry("b", "[2]", 0, 8)
    ));
    let vast = one(&format!(
        "{},{}",
        entry("a", "[0,4611686018427387904]", 0, 0),
        entry("b", "[2]", 0, 8)
    ));
    let escape = one(&entry("../../etc/passwd\\u0000", "[2]", 0, 8));
    let metadata = format!(r#""__metadata__":{{"x":"{}"}},"#, "x".repeat(70_000));
    let metadata = one(&format!("{metadata}{}", entry("a", "[2]", 0, 8)));
    let scalar = file(&format!("{{{}}}", entry("a", "[]", 0, 4)), &[0; 4]);
    let ranked = one(&entry("a", "[1,1,1,1,2]", 0, 8));
    let nested = one(&format!(
        "{},{}",
        entry("a", "[2]", 0, 8),
        r#""b":{"dtype":"F32","shape":[],"data_offsets":[0,0],"x":1}"#
    ));
    for bytes in [
        spaces, twice, empty, vast, escape, metadata, scalar, ranked, nested,
    ] {
        assert_eq!(refused(&bytes).code, RejectionCode::Format);
    }
}

#[test]
fn a_flood_of_tensors_is_refused_while_reading() {
    let many: Vec<_> = (0..20_001)
        .map(|i| entry(&format!("t{i}"), "[1]", i * 4, i * 4 + 4))
        .collect();
    let bytes = file(&format!("{{{}}}", many.join(",")), &vec![0; 20_001 * 4]);
    assert!(refused(&bytes).detail.contains("20000"));
}

#[test]
fn gaps_overlaps_and_lies_about_size_are_refused() {
    for header in [
        entry("a", "[1]", 4, 8),
        entry("a", "[1]", 0, 4),
        entry("a", "[3]", 0, 8),
        entry("a", "[2]", 8, 0),
        entry("a", "[2]", 0, u64::MAX),
        entry("a", "[4611686018427387904,8]", 0, 8),
        format!("{},{}", entry("a", "[2]", 0, 8), entry("b", "[1]", 4, 8)),
        format!("{},{}", entry("a", "[1]", 0, 4), entry("a", "[1]", 4, 8)),
        format!("{},{}", entry("a", "[2]", 0, 8), entry("b", "[2]", 0, 8)),
        entry("a", "[2]", 0, 8).replace("F32", "I64"),
        entry("a", "[2]", 0, 8).replace("F32", "F8_E4M3"),
        entry("a", "[2.0]", 0, 8),
        entry("a", "[-2]", 0, 8),
        String::new(),
        r#""__metadata__":{"a":"b"}"#.to_owned(),
        r#""__metadata__":{"a":1}"#.to_owned(),
        r#""a":null"#.to_owned(),
    ] {
        assert_eq!(
            refused(&one(&header)).code,
            RejectionCode::Format,
            "{header}"
        );
    }
}

#[test]
fn data_that_is_not_aligned_is_refused() {
    let header = format!("{{{}}}", entry("a", "[2]", 0, 8));
    let mut bytes = u64::try_from(header.len()).unwrap().to_le_bytes().to_vec();
    assert!(!header.len().is_multiple_of(8));
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&[0; 8]);
    assert!(safetensors::SafeTensors::deserialize(&bytes).is_ok());
    assert!(refused(&bytes).detail.contains("multiple of 8"));
}

#[test]
fn lengths_are_checked_before_memory_is_taken() {
    let claim = |n: u64| [&n.to_le_bytes()[..], b"{}      "].concat();
    for n in [u64::MAX, 1 << 40, 16, 9, 0] {
        assert_eq!(refused(&claim(n)).code, RejectionCode::Format);
    }
    assert_eq!(refused(b"short").code, RejectionCode::Format);
    // The file is shorter than its size says: not the miner's doing.
    let bytes = save(&tensors());
    let cut = Header::read(&mut &bytes[..20], 1 << 20);
    assert!(matches!(cut, Err(StreamError::Io(_))), "{cut:?}");
}

proptest! {
    #[test]
    fn any_bytes_end_in_a_value(header in "[\\PC]{0,200}", data in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert!(read(&file(&header, &data)).is_err());
    }

    #[test]
    fn a_changed_byte_never_panics_and_never_reaches_outside(at in 0..1400usize, byte in any::<u8>()) {
        let mut bytes = save(&tensors());
        bytes[at] = byte;
        if let Ok(header) = read(&bytes) {
            let sum: u64 = header.tensors.iter().map(TensorInfo::bytes).sum();
            prop_assert_eq!(header.data_start + sum, u64::try_from(bytes.len()).unwrap());
            // Ours is the stricter of the two.
            let theirs = safetensors::SafeTensors::deserialize(&bytes);
            prop_assert_eq!(theirs.unwrap().len(), header.tensors.len());
        }
    }
}

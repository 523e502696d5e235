//! Files of `torch.save` as others write them: `pytorch_model.bin`, and what is no such file, is damaged, or hostile.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::Path;

use proptest::prelude::*;
use safetensors::tensor::Dtype;
use serde_json::json;
use taper::checkpoint::{CheckpointError, TorchFlaw, find_weights, open_pretrained};
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use super::huggingface::{Tensor, encode, hf_tensors};
use super::nanogpt::written;
use super::pretrained::{load, reference, write_config, write_tensors};
use super::{bits, temp_dir};

/// A zip archive of stored entries.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn text(text: &str) -> Vec<u8> {
    [
        &b"X"[..],
        &(text.len() as u32).to_le_bytes(),
        text.as_bytes(),
    ]
    .concat()
}

fn int(number: usize) -> Vec<u8> {
    [&b"\x8a\x08"[..], &(number as u64).to_le_bytes()].concat()
}

fn tuple(numbers: &[usize]) -> Vec<u8> {
    let numbers: Vec<u8> = numbers.iter().flat_map(|&n| int(n)).collect();
    [&b"("[..], &numbers, b"t"].concat()
}

/// A tensor of a storage of `elements`, as PyTorch pickles it.
fn tensor(class: &str, key: &str, elements: usize, offset: usize, sizes: [&[usize]; 2]) -> Vec<u8> {
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        format!("ctorch\n{class}\n").into_bytes(),
        text(key),
        text("cpu"),
        int(elements),
        b"tQ".to_vec(),
        int(offset),
        tuple(sizes[0]),
        tuple(sizes[1]),
        b"\x89ccollections\nOrderedDict\n)RtR".to_vec(),
    ]
    .concat()
}

fn strides(shape: &[usize]) -> Vec<usize> {
    let after = (1..=shape.len()).map(|at| shape[at..].iter().product());
    after.collect()
}

/// A file with `tensors` in one storage, with `also` as further items of the dictionary.
fn state_file(tensors: &[Tensor], dtype: Dtype, also: &[u8]) -> Vec<u8> {
    let class = match dtype {
        Dtype::F32 => "FloatStorage",
        Dtype::F16 => "HalfStorage",
        _ => "BFloat16Storage",
    };
    let elements = tensors.iter().map(|(.., values)| values.len()).sum();
    let (mut pickle, mut bytes, mut offset) = (b"\x80\x02}(".to_vec(), Vec::new(), 0);
    for (name, shape, values) in tensors {
        pickle.extend(text(name));
        pickle.extend(tensor(
            class,
            "0",
            elements,
            offset,
            [shape, &strides(shape)],
        ));
        bytes.extend(encode(values, dtype));
        offset += values.len();
    }
    pickle.extend(also);
    pickle.extend(b"u.");
    archive(&[
        ("m/data.pkl", &pickle),
        ("m/byteorder", b"little"),
        ("m/data/0", &bytes),
        ("m/data/1", &[1; 36]),
    ])
}

fn write_bin(folder: &Path, bytes: &[u8]) {
    write_config(folder, &reference().0, "");
    fs::write(folder.join("pytorch_model.bin"), bytes).unwrap();
}

#[test]
fn pytorch_model_bin_loads_as_safetensors_would_in_every_type() {
    let (dims, weights) = reference();
    let tensors = hf_tensors(&dims, &weights);
    // A mask of truth values, one that is not whole, a number beside the tensors, and the tied head.
    let embedding = &tensors[0];
    let also = [
        text("transformer.h.0.attn.bias"),
        tensor("BoolStorage", "1", 36, 0, [&[1, 1, 6, 6], &[36, 36, 6, 1]]),
        text("h.1.attn.bias"),
        tensor("BoolStorage", "1", 36, 0, [&[6, 6], &[0, 0]]),
        text("epoch"),
        int(3),
        text("lm_head.weight"),
    ]
    .concat();
    for (dtype, class) in [
        (Dtype::F32, "FloatStorage"),
        (Dtype::F16, "HalfStorage"),
        (Dtype::BF16, "BFloat16Storage"),
    ] {
        let head = tensor(
            class,
            "0",
            embedding.2.len(),
            0,
            [&embedding.1, &strides(&embedding.1)],
        );
        let folder = temp_dir();
        write_bin(
            folder.path(),
            &state_file(&tensors, dtype, &[&also[..], &head].concat()),
        );
        assert_eq!(
            bits(&load(folder.path(), &dims).unwrap()),
            bits(&weights),
            "{dtype}"
        );
        let notes = open_pretrained(folder.path()).unwrap().notes();
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(notes[0].contains("`epoch`"), "{notes:?}");
    }
}

#[test]
fn shards_are_read_and_safetensors_win() {
    let (dims, weights) = reference();
    let tensors = hf_tensors(&dims, &weights);
    let folder = temp_dir();
    write_config(folder.path(), &dims, "");
    let (one, other) = tensors.split_at(9);
    for (file, part) in [("a.bin", one), ("b.bin", other)] {
        fs::write(folder.path().join(file), state_file(part, Dtype::F32, b"")).unwrap();
    }
    let file = |(at, (name, ..)): (usize, &Tensor)| {
        (name.clone(), json!(if at < 9 { "a.bin" } else { "b.bin" }))
    };
    let map: serde_json::Map<_, _> = tensors.iter().enumerate().map(file).collect();
    let index = folder.path().join("pytorch_model.bin.index.json");
    fs::write(index, json!({ "weight_map": map }).to_string()).unwrap();
    assert_eq!(bits(&load(folder.path(), &dims).unwrap()), bits(&weights));
    fs::remove_file(folder.path().join("b.bin")).unwrap();
    let error = open_pretrained(folder.path()).err().unwrap();
    assert!(error.to_string().contains("lists `b.bin`"), "{error}");
    let others: Vec<f32> = weights.iter().map(|x| -x).collect();
    write_tensors(
        &folder.path().join("model.safetensors"),
        &hf_tensors(&dims, &others),
        Dtype::F32,
    );
    assert_eq!(bits(&load(folder.path(), &dims).unwrap()), bits(&others));
}

/// The reason why a file is refused, and the hint.
#[track_caller]
fn refused(bytes: &[u8]) -> (TorchFlaw, String) {
    let folder = temp_dir();
    write_bin(folder.path(), bytes);
    match open_pretrained(folder.path()) {
        Err(CheckpointError::Torch(error)) => {
            let text = error.to_string();
            assert!(text.contains("pytorch_model.bin"), "{text}");
            let flaw = format!("{:?}", error.flaw);
            let hint = CheckpointError::Torch(error).hint().unwrap();
            let Err(CheckpointError::Torch(error)) = open_pretrained(folder.path()) else {
                unreachable!("{flaw}")
            };
            (error.flaw, hint)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_of_other_formats_are_named_with_what_to_do() {
    let legacy = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";
    let tar = [&[0; 257][..], b"ustar"].concat();
    let again = "torch.save(torch.load(";
    for old in [&legacy[..], &tar] {
        let (flaw, hint) = refused(old);
        assert!(
            matches!(flaw, TorchFlaw::Legacy) && hint.contains(again),
            "{hint}"
        );
    }
    for other in [&b""[..], b"hello", b"\x80\x02}."] {
        assert!(matches!(refused(other).0, TorchFlaw::NotSaved));
    }
    let (flaw, hint) = refused(b"version https://git-lfs.github.com/spec/v1\n");
    assert!(matches!(flaw, TorchFlaw::GitLfs) && hint.contains("git lfs pull"));
    let pickle = ("m/data.pkl", &b"\x80\x02}."[..]);
    let (flaw, hint) = refused(&archive(&[pickle, ("m/byteorder", b"big")]));
    assert!(
        matches!(flaw, TorchFlaw::BigEndian) && hint.contains(again),
        "{hint}"
    );
    for name in ["m/code/x.py", "m/constants.pkl"] {
        let (flaw, hint) = refused(&archive(&[pickle, (name, b"")]));
        assert!(matches!(flaw, TorchFlaw::TorchScript) && hint.contains("torch.jit.load"));
    }
    let two = archive(&[pickle, ("n/data.pkl", b"\x80\x02}.")]);
    assert!(matches!(refused(&two).0, TorchFlaw::Overlap));
    assert!(matches!(
        refused(&archive(&[("m/data/0", b"")])).0,
        TorchFlaw::NotSaved
    ));
    let list = archive(&[("m/data.pkl", b"\x80\x02].")]);
    assert!(matches!(refused(&list).0, TorchFlaw::Object { .. }));
}

/// The places of the entries in an archive's list.
fn listed(bytes: &[u8]) -> Vec<usize> {
    let at = bytes.windows(4).enumerate();
    at.filter(|(_, four)| four == b"PK\x01\x02")
        .map(|(at, _)| at)
        .collect()
}

#[test]
fn entries_that_are_no_plain_ranges_of_the_file_are_refused() {
    let (dims, weights) = reference();
    let good = state_file(&hf_tensors(&dims, &weights), Dtype::F32, b"");
    let list = listed(&good);
    let patched = |entry: usize, offset: usize, with: &[u8]| {
        let mut bytes = good.clone();
        bytes[list[entry] + offset..][..with.len()].copy_from_slice(with);
        refused(&bytes).0
    };
    let is_entry = |flaw: TorchFlaw, what: &str| {
        assert!(
            matches!(&flaw, TorchFlaw::Entry { found, .. } if *found == what),
            "{flaw}"
        );
    };
    is_entry(patched(2, 8, &[1, 0]), "encrypted");
    is_entry(patched(2, 10, &[8, 0]), "compressed");
    is_entry(patched(2, 20, &[1, 0, 0, 0]), "compressed");
    // An entry where another is, and one that is longer than the file.
    assert!(matches!(
        patched(2, 42, &good[list[0] + 42..][..4]),
        TorchFlaw::Overlap
    ));
    let long = [0, 0, 0, 0x70, 0, 0, 0, 0x70];
    assert!(matches!(patched(2, 20, &long), TorchFlaw::Overlap));
    // A storage that is shorter than its tensors.
    let short = [16, 0, 0, 0, 16, 0, 0, 0];
    assert!(matches!(patched(2, 20, &short), TorchFlaw::Tensor { .. }));
}

#[test]
fn tensors_that_are_not_whole_rows_of_the_file_are_refused_by_name() {
    let cases: [(&str, usize, usize, [&[usize]; 2]); 5] = [
        ("FloatStorage", 6, 0, [&[2, 3], &[1, 2]]),
        ("FloatStorage", 6, 1, [&[2, 3], &[3, 1]]),
        ("FloatStorage", 99, 0, [&[99], &[1]]),
        (
            "FloatStorage",
            6,
            0,
            [&[1 << 31, 1 << 31, 4], &[1 << 33, 4, 1]],
        ),
        ("ComplexFloatStorage", 2, 0, [&[2], &[1]]),
    ];
    for (class, elements, offset, sizes) in cases {
        let also = [
            text("wte.weight"),
            tensor(class, "1", elements, offset, sizes),
        ]
        .concat();
        match refused(&state_file(&[], Dtype::F32, &also)) {
            (TorchFlaw::Tensor { name, .. }, hint) => {
                assert_eq!(name, "wte.weight");
                assert!(hint.contains(".contiguous()"), "{hint}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The file with another pickle.
pub fn with_pickle(bytes: &[u8], change: impl Fn(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let mut zip = ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut entries = Vec::new();
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).unwrap();
        let (name, mut bytes) = (entry.name().unwrap().into_owned(), Vec::new());
        entry.read_to_end(&mut bytes).unwrap();
        if name.ends_with("data.pkl") {
            bytes = change(bytes);
        }
        entries.push((name, bytes));
    }
    let entries = entries.iter().map(|(name, bytes)| (&name[..], &bytes[..]));
    archive(&entries.collect::<Vec<_>>())
}

/// The checkpoint with another object in its dictionary.
fn with_object(bytes: &[u8], object: &[u8]) -> Vec<u8> {
    with_pickle(bytes, |pickle| {
        let inside = pickle.strip_suffix(b"u.").unwrap();
        [inside, &text("more"), object, b"u."].concat()
    })
}

fn find(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let file = path.join("ckpt.pt");
    fs::write(&file, bytes).unwrap();
    find_weights(file.to_str().unwrap(), Path::new("no-hub")).map(drop)
}

#[test]
fn objects_of_any_class_are_passed_over_and_nothing_is_executed() {
    let (_, good) = written(true);
    let folder = temp_dir();
    let path = folder.path();
    let touch = format!("touch {}", path.join("executed").display());
    let doubled: Vec<u8> = (0..60u8)
        .flat_map(|n| [b'h', n, b'h', n, 0x86, b'q', n + 1])
        .collect();
    let objects: [&[u8]; 8] = [
        b"cargparse\nNamespace\n)\x81}(X\x01\x00\x00\x00aK\x01ub",
        &[b"cposix\nsystem\n(", &text(&touch)[..], b"tR"].concat(),
        b"cnumpy._core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x02\x00\x00\x00f8K\x00K\x01tRC\x08\0\0\0\0\0\0\xf8?tR",
        b"ccollections\ndefaultdict\n(cbuiltins\nint\ntRX\x01\x00\x00\x00aK\x01s",
        // A list that holds itself, and one of 2^60 items by sixty references to the one before.
        b"]q\xffh\xffa",
        &[b"(K\x00q\x00", &doubled[..], b"t"].concat(),
        &[&b"]".repeat(400_000)[..], &b"a".repeat(399_999)].concat(),
        b"\x8a\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    ];
    for object in objects {
        find(path, &with_object(&good, object)).unwrap();
    }
    assert!(!path.join("executed").exists());
}

#[test]
fn pickles_beyond_any_checkpoint_are_refused_before_they_take_memory() {
    let (_, good) = written(true);
    let folder = temp_dir();
    let nested = [&b"]".repeat(2_500_000)[..], &b"a".repeat(2_499_999)].concat();
    let pairs = [&b"]("[..], &b"(K\x01K\x02t".repeat(9000), b"eq\x07"].concat();
    let copies = b"ccollections\nOrderedDict\n(h\x07tR0".repeat(200);
    let shape = tensor("FloatStorage", "0", 1, 0, [&[1; 64], &[1; 64]]);
    let too_many_dimensions = tensor("FloatStorage", "0", 1, 0, [&[1; 65], &[1; 65]]);
    let objects: [&[u8]; 10] = [
        &nested,
        &[&pairs[..], &copies].concat(),
        &shape.repeat(9000),
        &too_many_dimensions,
        &b"\x94".repeat(2_000_000),
        &vec![b'('; 9 << 20],
        b"X\xff\xff\xff\x7f",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
        b"ctorch._utils\n_rebuild_tensor_v2\n)R",
        b"ctorch._utils\n_rebuild_tensor_v2\n(K\x00tR",
    ];
    for object in objects {
        match find(folder.path(), &with_object(&good, object)) {
            Err(CheckpointError::Torch(error)) => {
                assert!(matches!(error.flaw, TorchFlaw::Pickle(_)), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_file_that_is_cut_or_changed_anywhere_is_read_or_refused() {
    let (_, good) = written(false);
    let folder = temp_dir();
    for end in (0..good.len()).step_by(211) {
        match find(folder.path(), &good[..end]) {
            Err(CheckpointError::Torch(error)) => {
                let early = matches!(error.flaw, TorchFlaw::CutShort(_) | TorchFlaw::NotSaved);
                assert!(early, "{end}: {error}");
            }
            other => panic!("{end}: {other:?}"),
        }
    }
    // Its pickle is at the start, the list of entries at the end.
    let ends = (0..good.len()).filter(|at| *at < 3000 || *at > good.len() - 3000);
    for at in ends.step_by(7) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x5b;
        let _ = find(folder.path(), &bytes);
    }
}

#[test]
fn written_entries_are_aligned_as_pytorch_aligns_them() {
    let (_, bytes) = written(true);
    let mut zip = ZipArchive::new(Cursor::new(&bytes)).unwrap();
    for index in 0..zip.len() {
        let entry = zip.by_index(index).unwrap();
        assert_eq!(entry.data_start().unwrap() % 64, 0);
        assert!(entry.name().unwrap().starts_with("ckpt/"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_pickle_is_read_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        codes in r"[\]\}()NacetubdlQRXKq\x00\x01hs2\.\u{80}-\u{96}]{0,80}",
    ) {
        let codes: Vec<u8> = codes.chars().map(|code| code as u8).collect();
        let folder = temp_dir();
        for pickle in [bytes, [&b"ctorch._utils\n_rebuild_tensor_v2\n"[..], &codes].concat()] {
            let _ = find(folder.path(), &archive(&[("m/data.pkl", &pickle), ("m/data/0", b"1234")]));
        }
    }
}

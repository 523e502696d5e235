//! llm.c's model files, against bytes that are put together here from the format alone.

use std::fs;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use taper::checkpoint::{
    CheckpointError, Export, ExportError, ExportTarget, ForeignError, WeightsDtype, export,
    find_weights, open,
};
use taper::model::ParamLayout;
use taper::terms::{Gelu, ModelDims};

use super::pretrained::reference;
use super::{Run, bits, names_in, temp_dir, tiny};

/// Tensors of every block in llm.c's order.
const OF_BLOCK: [&str; 12] = [
    "ln_1.weight",
    "ln_1.bias",
    "attn.c_attn.weight",
    "attn.c_attn.bias",
    "attn.c_proj.weight",
    "attn.c_proj.bias",
    "ln_2.weight",
    "ln_2.bias",
    "mlp.c_fc.weight",
    "mlp.c_fc.bias",
    "mlp.c_proj.weight",
    "mlp.c_proj.bias",
];

/// The integers of a header, without those that are zero.
fn header(dims: &ModelDims, version: i32, padded: usize) -> Vec<i32> {
    let sizes = [
        dims.block_size,
        dims.vocab_size,
        dims.n_layer,
        dims.n_head,
        dims.n_embd,
        padded,
    ];
    let sizes = sizes.map(|size| size as i32);
    [&[20_240_326, version], &sizes[..]].concat()
}

/// A header and numbers as a file.
fn file(mut header: Vec<i32>, numbers: &[u8]) -> Vec<u8> {
    header.resize(256, 0);
    let header = header.iter().flat_map(|integer| integer.to_le_bytes());
    header.chain(numbers.iter().copied()).collect()
}

/// The values in the order of the file, those in the rows that pad the vocabulary being `filler`.
fn in_order(dims: &ModelDims, weights: &[f32], padded: usize, filler: f32) -> Vec<f32> {
    let layout = ParamLayout::new(dims);
    let of = |name: &str| &weights[layout.get(&format!("transformer.{name}")).unwrap().range()];
    let mut values = of("wte.weight").to_vec();
    values.resize(padded * dims.n_embd, filler);
    values.extend(of("wpe.weight"));
    for name in OF_BLOCK {
        for layer in 0..dims.n_layer {
            values.extend(of(&format!("h.{layer}.{name}")));
        }
    }
    values.extend(of("ln_f.weight"));
    values.extend(of("ln_f.bias"));
    values
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The numbers of `values` as bf16: exact for those of [`reference`].
fn bf16_bytes(values: &[f32]) -> Vec<u8> {
    let high_half = |x: &f32| ((x.to_bits() >> 16) as u16).to_le_bytes();
    values.iter().flat_map(high_half).collect()
}

fn written(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn refused(path: &Path) -> CheckpointError {
    let found = find_weights(path.to_str().unwrap(), Path::new("no-hub"));
    found.err().expect("the file is refused")
}

/// `dims` and `weights` in llm.c's format, by way of a checkpoint.
fn exported(
    dims: &ModelDims,
    weights: &[f32],
    dtype: WeightsDtype,
) -> Result<Vec<u8>, CheckpointError> {
    let folder = temp_dir();
    let mut run = Run::at(dims.clone(), 1);
    run.weights = weights.to_vec();
    run.save(&folder.path().join("run"));
    let name = folder.path().join("run");
    let found = find_weights(name.to_str().unwrap(), Path::new("no-hub")).unwrap();
    let progress = ProgressBar::hidden();
    let request = Export {
        pretrained: &found.pretrained,
        target: ExportTarget::Llmc,
        dtype,
        gelu: None,
        run: None,
        extra_files: &[],
        progress: &progress,
    };
    let out = folder.path().join("gpt2.bin");
    let done = export(&request, &out);
    if done.is_ok() {
        assert_eq!(Some(progress.position()), progress.length());
    }
    let hidden: Vec<String> = names_in(folder.path());
    assert_eq!(hidden.len(), 1 + usize::from(done.is_ok()), "{hidden:?}");
    done.map(|()| fs::read(&out).unwrap())
}

#[test]
fn both_versions_load_to_the_weights_that_are_in_them() {
    let (dims, weights) = reference();
    let folder = temp_dir();
    // NaN beside the vocabulary is no row of it.
    let values = in_order(&dims, &weights, 128, f32::NAN);
    for (version, numbers) in [(3, f32_bytes(&values)), (5, bf16_bytes(&values))] {
        let bytes = file(header(&dims, version, 128), &numbers);
        let path = written(folder.path(), "gpt2_124M.bin", &bytes);
        let found = find_weights(path.to_str().unwrap(), Path::new("no-hub")).unwrap();
        let pretrained = found.pretrained;
        assert_eq!(pretrained.folder(), folder.path());
        let without_dropout = ModelDims {
            dropout: 0.0,
            ..dims.clone()
        };
        assert_eq!(pretrained.dims, without_dropout);
        let mut loaded = vec![7.0; weights.len()];
        pretrained.load_weights(&dims, &mut loaded).unwrap();
        assert_eq!(bits(&loaded), bits(&weights), "version {version}");
    }
}

#[test]
fn what_is_written_is_what_llm_c_writes() {
    let (dims, weights) = reference();
    let values = in_order(&dims, &weights, 128, 0.0);
    let float32 = exported(&dims, &weights, WeightsDtype::Float32).unwrap();
    assert!(float32 == file(header(&dims, 3, 128), &f32_bytes(&values)));
    let bfloat16 = exported(&dims, &weights, WeightsDtype::Bfloat16).unwrap();
    assert!(bfloat16 == file(header(&dims, 5, 128), &bf16_bytes(&values)));
}

#[test]
fn bf16_is_rounded_to_the_nearest_and_half_way_to_the_even_one() {
    let (dims, mut weights) = reference();
    let pairs: [(u32, u16); 8] = [
        (0x3f80_7fff, 0x3f80),
        (0x3f80_8000, 0x3f80),
        (0x3f80_8001, 0x3f81),
        (0x3f81_8000, 0x3f82),
        (0xbf81_8000, 0xbf82),
        (0x8000_0001, 0x8000),
        (0x0000_c000, 0x0001),
        (0x7f7e_ffff, 0x7f7f),
    ];
    for (weight, (value, _)) in weights.iter_mut().zip(pairs) {
        *weight = f32::from_bits(value);
    }
    let bytes = exported(&dims, &weights, WeightsDtype::Bfloat16).unwrap();
    let rounded = bytes[1024..].chunks(2).zip(pairs);
    for (found, (value, expected)) in rounded {
        assert_eq!(found, expected.to_le_bytes(), "{value:#x}");
    }
    // The next larger one has no bf16.
    weights[0] = f32::from_bits(0x7f7f_8000);
    match exported(&dims, &weights, WeightsDtype::Bfloat16) {
        Err(CheckpointError::Foreign(ForeignError::Value { at, .. })) => assert_eq!(at, [0, 0]),
        other => panic!("{other:?}"),
    }
    exported(&dims, &weights, WeightsDtype::Float32).unwrap();
}

#[test]
fn a_model_without_biases_gets_zeros_and_one_with_another_gelu_is_refused() {
    let dims = tiny(false);
    let len = ParamLayout::new(&dims).len;
    let weights: Vec<f32> = (0..len).map(|i| i as f32 / 8.0).collect();
    let bytes = exported(&dims, &weights, WeightsDtype::Float32).unwrap();
    let with = tiny(true);
    let folder = temp_dir();
    let path = written(folder.path(), "model.bin", &bytes);
    let found = find_weights(path.to_str().unwrap(), Path::new("no-hub")).unwrap();
    let layout = ParamLayout::new(&with);
    let mut loaded = vec![7.0; layout.len];
    found.pretrained.load_weights(&with, &mut loaded).unwrap();
    for param in &layout.params {
        let loaded = &loaded[param.range()];
        match ParamLayout::new(&dims).get(&param.name) {
            Some(own) => assert_eq!(loaded, &weights[own.range()], "{}", param.name),
            None => assert!(loaded.iter().all(|x| *x == 0.0), "{}", param.name),
        }
    }
    let erf = ModelDims {
        gelu: Gelu::Erf,
        ..with
    };
    let weights = vec![0.5; layout.len];
    match exported(&erf, &weights, WeightsDtype::Float32) {
        Err(CheckpointError::Export(ExportError::Unlike { key, .. })) => assert_eq!(key, "gelu"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_that_does_not_fit_its_header_is_refused_with_both_lengths() {
    let (dims, weights) = reference();
    let bytes = file(
        header(&dims, 3, 128),
        &f32_bytes(&in_order(&dims, &weights, 128, 0.0)),
    );
    let folder = temp_dir();
    let whole = bytes.len();
    let longer = [&bytes[..], &[0; 4]].concat();
    for wrong in [&bytes[..whole - 1], &bytes[..1024], &longer] {
        let path = written(folder.path(), "model.bin", wrong);
        let message = refused(&path).to_string();
        for number in [wrong.len(), whole] {
            assert!(message.contains(&number.to_string()), "{message}");
        }
    }
    let path = written(folder.path(), "model.bin", &bytes[..1023]);
    let message = refused(&path).to_string();
    assert!(message.contains("header alone takes 1024"), "{message}");
}

#[test]
fn sizes_that_are_no_models_are_named() {
    let (dims, _) = reference();
    let folder = temp_dir();
    let names = [
        "max_seq_len",
        "vocab_size",
        "num_layers",
        "num_heads",
        "channels",
        "padded_vocab_size",
    ];
    for (at, name) in names.into_iter().enumerate() {
        for size in [-1, i32::MIN, i32::MAX] {
            let mut header = header(&dims, 3, 128);
            header[2 + at] = size;
            let path = written(folder.path(), "model.bin", &file(header, &[0; 64]));
            let message = refused(&path).to_string();
            let expected = format!("`{name}` in its header is {size}");
            assert!(message.contains(&expected), "{message}");
        }
    }
    let mut heads = header(&dims, 3, 128);
    heads[5] = 3;
    let mut padded = header(&dims, 3, 128);
    padded[7] = 12;
    for (header, words) in [
        (heads, "`num_heads` in its header is 3, expected a divisor"),
        (padded, "expected a whole number from 13"),
    ] {
        let path = written(folder.path(), "model.bin", &file(header, &[]));
        let message = refused(&path).to_string();
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn other_files_of_llm_c_are_told_by_their_first_integers() {
    let (dims, _) = reference();
    let folder = temp_dir();
    let cases = [
        (vec![20_240_326, 1], "version 1", "train_gpt2.py"),
        (
            vec![20_240_527, 1],
            "the optimizer's state of llm.c",
            "model_00001000.bin",
        ),
        (
            vec![20_240_327, 2],
            "the optimizer's state of llm.c",
            "model_00001000.bin",
        ),
        (
            vec![20_240_328, 2],
            "llm.c's tokenizer",
            "name the model's file",
        ),
        (vec![20_240_803, 3], "a Llama of llm.c", "GPT-2"),
    ];
    for (start, what, next) in cases {
        let path = written(folder.path(), "state.bin", &file(start, &[]));
        let error = refused(&path);
        assert!(error.to_string().contains(what), "{error}");
        assert!(error.hint().unwrap().contains(next), "{error}");
        let resumed = open(&path).unwrap_err().hint().unwrap();
        let is_known = what.contains("state") || what.contains("version");
        assert_eq!(resumed.contains("is not taken over"), is_known, "{resumed}");
    }
    // A folder has more than one file of weights, and `--resume` needs what no model file has.
    let name = "model_00000250.bin";
    let path = written(folder.path(), name, &file(header(&dims, 3, 128), &[]));
    fs::remove_file(folder.path().join("state.bin")).unwrap();
    let hint = refused(folder.path()).hint().unwrap();
    assert_eq!(hint, format!("name the file: `{}`", path.display()));
    let hint = open(&path).unwrap_err().hint().unwrap();
    assert!(hint.contains("train.init_from="), "{hint}");
}

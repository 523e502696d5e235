//! Every automatic decision says why, in words that help. Those about the micro-batch are in `micro_batch`.

use taper::device::Hardware;
use taper::plan::AUTOTUNE_MIN_SMS;
use taper::terms::{Inputs, Precision, VectorExtension};

use super::{Asked, GIB, card, cards, choice, config, cpu, on_card, shown};

#[test]
fn the_dtype_is_the_fastest_that_the_card_trains_in() {
    for (name, dtype, because) in [
        (
            "t4",
            "float16",
            "compute capability 7.5 has no bfloat16 (8.0 has): float16 with a loss scaler",
        ),
        (
            "rtx2080ti",
            "float16",
            "compute capability 7.5 has no bfloat16 (8.0 has): float16 with a loss scaler",
        ),
        ("a100-40", "bfloat16", "compute capability 8.0 has bfloat16"),
        ("rtx3060", "bfloat16", "compute capability 8.6 has bfloat16"),
        ("gb10", "bfloat16", "compute capability 12.1 has bfloat16"),
    ] {
        let plan = on_card(config("quickstart", ""), name).plan();
        assert_eq!(choice(&plan, "dtype"), (dtype, because), "{name}");
    }
    let plan = Asked::new(config("quickstart", ""), cpu(4, &[]), 96).plan();
    assert_eq!(
        choice(&plan, "dtype"),
        ("float32", "the CPU trains in float32")
    );
}

#[test]
fn a_card_without_kernels_is_refused_by_name() {
    for (preset, name) in [("quickstart", "v100"), ("eval_gpt2", "v100-32")] {
        let refused = shown(&on_card(config(preset, ""), name).try_plan().unwrap_err());
        assert!(refused.contains("error: Tesla V100-SXM2-"), "{refused}");
        let words =
            "has compute capability 7.0; kernels are there for 7.5 and newer (Turing, 2018)";
        assert!(refused.contains(words), "{refused}");
        assert!(refused.contains("hint: use a newer GPU"), "{refused}");
    }
}

#[test]
fn a_card_newer_than_the_kernels_is_told_which_it_runs() {
    let kernels = |name| {
        let plan = on_card(config("quickstart", ""), name).plan();
        let mut choices = plan.choices.into_iter();
        choices
            .find(|choice| choice.name == "kernels")
            .map(|choice| choice.because)
    };
    for name in ["t4", "rtx3060", "rtx4090", "h200"] {
        assert_eq!(kernels(name), None, "{name}");
    }
    for (name, has) in [("b200", "10.0"), ("rtx5090", "12.0"), ("gb10", "12.1")] {
        let because = kernels(name).unwrap();
        assert!(
            because.starts_with(&format!("compute capability {has} is newer")),
            "{because}"
        );
    }
}

#[test]
fn a_dtype_asked_for_is_taken_or_refused() {
    let asked = |dtype: &str, name| {
        on_card(config("quickstart", &format!("system.dtype={dtype}")), name).try_plan()
    };
    for (dtype, name, precision) in [
        ("float32", "t4", Precision::Float32),
        ("float32", "h100", Precision::Float32),
        ("float16", "h100", Precision::Float16),
        ("float16", "t4", Precision::Float16),
        ("bfloat16", "rtx3060", Precision::Bfloat16),
    ] {
        let plan = asked(dtype, name).unwrap();
        assert_eq!(plan.precision, precision);
        assert_eq!(choice(&plan, "dtype").1, "`system.dtype` says so");
    }
    let refused = shown(&asked("bfloat16", "t4").unwrap_err());
    assert_eq!(
        refused,
        "error: `system.dtype` is `bfloat16`, but compute capability 7.5 has no bfloat16 (8.0 has): \
         float16 with a loss scaler\n\
         hint: use `--set system.dtype=auto`: it takes the fastest precision that the device has"
    );
    for dtype in ["bfloat16", "float16"] {
        let config = config("quickstart", &format!("system.dtype={dtype}"));
        let refused = Asked::new(config, cpu(4, &[]), 96).try_plan().unwrap_err();
        let refused = shown(&refused);
        assert!(refused.contains("the CPU trains in float32"), "{refused}");
        assert!(refused.contains("--set system.dtype=auto"), "{refused}");
    }
}

/// TorchInductor's bound is a Choice here: both numbers, what is limited, what is not, how to force it.
#[test]
fn every_card_is_told_how_far_the_search_goes_and_why() {
    for card in cards() {
        let sm_count = match &card.hardware {
            Hardware::Cuda(cuda) => cuda.sm_count,
            Hardware::Cpu(_) => panic!("a card is a GPU"),
        };
        let asked = |autotune: &str| {
            let config = config("quickstart", &format!("gemm.autotune={autotune}"));
            let plan = Asked::new(config, card.clone(), 96).plan();
            let (value, because) = choice(&plan, "gemm autotune");
            (value.to_owned(), because.to_owned())
        };
        let small = sm_count < AUTOTUNE_MIN_SMS;
        let (value, because) = asked("auto");
        assert_eq!(value, if small { "limited" } else { "full" });
        let numbers = format!(
            "{sm_count} SMs are there, the full search needs 68, as in TorchInductor (`is_big_gpu` in \
             torch/_inductor/utils.py)"
        );
        let limits = ": fewer candidates are timed for each matrix product; precision, micro-batch \
                      and all else are not limited, and training goes on; `--set gemm.autotune=full` \
                      forces the full search";
        let limits = if small { limits } else { "" };
        assert_eq!(because, format!("{numbers}{limits}"), "{}", card.name);

        let forced = ("full".into(), format!("`gemm.autotune` says so; {numbers}"));
        assert_eq!(asked("full"), forced);
        let limited = ("limited".into(), "`gemm.autotune` says so".into());
        assert_eq!(asked("limited"), limited);
    }
}

#[test]
fn the_bound_lies_where_torch_inductor_has_it() {
    assert_eq!(AUTOTUNE_MIN_SMS, 68);
    let value = |name| {
        let plan = on_card(config("quickstart", ""), name).plan();
        choice(&plan, "gemm autotune").0.to_owned()
    };
    // 28, 58, 68 and 68 SMs.
    assert_eq!(
        ["rtx3060", "l4", "rtx2080ti", "rtx3080"].map(value),
        ["limited", "limited", "full", "full"]
    );
    let plan = Asked::new(config("quickstart", ""), cpu(4, &[]), 96).plan();
    assert_eq!(
        choice(&plan, "gemm autotune"),
        ("limited", "every candidate gives the same bits")
    );
}

#[test]
fn recompute_says_who_wants_it() {
    let recompute = |sets: &str, gib: f64| {
        let mut asked = on_card(config("openwebtext", sets), "rtx3060");
        asked.device.available_bytes = Some((gib * GIB as f64) as u64);
        let plan = asked.plan();
        let (value, because) = choice(&plan, "recompute");
        (value.to_owned(), because.to_owned())
    };
    let expect = |value: &str, because: &str| (value.to_owned(), because.to_owned());
    assert_eq!(
        recompute("", 11.69),
        expect("none", "everything is kept: nothing is computed twice")
    );
    for value in ["gelu+ln", "block"] {
        let asked = recompute(&format!("system.recompute={value}"), 11.69);
        assert_eq!(asked, expect(value, "`system.recompute` says so"));
    }
    assert_eq!(
        recompute("", 2.68),
        expect("block", "keeping more needs 2.78 GiB, 2.68 GiB may be used")
    );
}

#[test]
fn a_vocabulary_of_gpt2_is_padded_and_says_where_it_is_from() {
    let mut asked = on_card(config("openwebtext", ""), "rtx3060");
    let plan = asked.plan();
    assert_eq!(
        choice(&plan, "vocab_size"),
        (
            "50304",
            "made up; 50257 is rounded up to a multiple of 64, as nanoGPT does"
        )
    );
    assert_eq!(plan.model.vocab_size, 50_304);
    asked.weights = Some(taper::terms::ModelDims {
        vocab_size: 50_257,
        ..plan.model
    });
    assert_eq!(
        choice(&asked.plan(), "vocab_size"),
        ("50257", "the rows of the weights that training starts from")
    );
    let mut small = on_card(config("openwebtext", "model.vocab_size=50000"), "rtx3060");
    let refused = shown(&small.try_plan().unwrap_err());
    assert!(
        refused.contains("`made-up` has 50257 token ids (made up)"),
        "{refused}"
    );
    assert!(refused.contains("set it to 50257 or more"), "{refused}");
    small.dataset.vocab_size.value = 50_000;
    assert_eq!(small.plan().model.vocab_size, 50_000);
}

#[test]
fn an_evaluation_keeps_nothing_and_says_nothing_of_recompute() {
    let plan = on_card(config("eval_gpt2", ""), "rtx3060").plan();
    assert!(plan.choices.iter().all(|choice| choice.name != "recompute"));
    let training = on_card(config("eval_gpt2", "eval_only=false"), "rtx3060").plan();
    let (a, b) = (plan.launch(), training.launch());
    assert!(a.bytes < b.bytes);
    // A backward and an optimizer step less: about a third of the work.
    let ratio = a.tokens_per_second / b.tokens_per_second;
    assert!((2.5..4.0).contains(&ratio), "{ratio}");
    let mut tight = on_card(config("eval_gpt2", ""), "rtx3060");
    tight.device.available_bytes = Some(850 << 20);
    assert_eq!(
        choice(&tight.plan(), "micro-batch"),
        (
            "2",
            "4 needs 871.3 MiB, 850.0 MiB may be used; the losses are the same"
        )
    );
}

#[test]
fn a_chunk_of_logits_says_what_all_of_them_would_be() {
    // nanoGPT's 6.14 GiB.
    let sets = "batch_size=64 gradient_accumulation_steps=1";
    let plan = on_card(config("openwebtext", sets), "h100").plan();
    let (_, because) = choice(&plan, "logits chunk");
    assert!(
        because.ends_with("all 65,536 rows would be 6.14 GiB"),
        "{because}"
    );
    let plan = on_card(config("openwebtext", "batch_size=1"), "h100").plan();
    let (value, because) = choice(&plan, "logits chunk");
    assert_eq!(
        (value, because),
        ("1,024 rows", "all of a micro-batch, 98.2 MiB")
    );
}

#[test]
fn cards_have_no_threads_and_cpus_say_whose_theirs_are() {
    let plan = on_card(config("quickstart", ""), "t4").plan();
    assert!(plan.choices.iter().all(|choice| choice.name != "threads"));
    assert!(matches!(card("t4").hardware, Hardware::Cuda(_)));
    let threads = |sets: &str| {
        let plan = Asked::new(config("quickstart", sets), cpu(6, &[]), 96).plan();
        let (value, because) = choice(&plan, "threads");
        (value.to_owned(), because.to_owned())
    };
    assert_eq!(threads("").1, "every core this process may use");
    assert_eq!(threads("").0, "6");
    assert_eq!(
        threads("system.threads=3"),
        ("3".to_owned(), "`system.threads` says so".to_owned())
    );
    for most in [64, 4096] {
        let (value, because) = threads(&format!("system.threads={most}"));
        assert_eq!(value, "6", "more than the cores only wait");
        assert!(because.starts_with(&format!("`system.threads` says {most}")));
    }
}

#[test]
fn amx_multiplies_float32_in_pieces_unless_it_is_told_not_to() {
    let asked =
        |extensions, sets| Asked::new(config("shakespeare_char", sets), cpu(2, extensions), 96);
    let amx = [
        VectorExtension::Avx2,
        VectorExtension::Avx512,
        VectorExtension::Avx512Bf16,
        VectorExtension::AmxBf16,
    ];
    let amx = amx.as_slice();
    let plan = asked(amx, "").plan();
    assert_eq!(plan.inputs, Inputs::Float32InPieces);
    assert_eq!(
        choice(&plan, "dtype"),
        (
            "float32",
            "the CPU trains in float32; AMX multiplies it in bfloat16 pieces, as accurately"
        )
    );
    for (extensions, sets, inputs) in [
        (&amx[..3], "", Inputs::Float32),
        (amx, "gemm.backend=fma", Inputs::Float32),
        (amx, "model.n_embd=192", Inputs::Float32),
        (amx, "system.dtype=float32", Inputs::Float32InPieces),
        (amx, "system.dtype=bfloat16", Inputs::Float32AsBfloat16),
    ] {
        assert_eq!(asked(extensions, sets).plan().inputs, inputs, "{sets}");
    }
}

#[test]
fn what_multiplies_on_the_other_kind_of_device_is_refused() {
    let refused = |asked: Asked| shown(&asked.try_plan().unwrap_err());
    let on_cpu = Asked::new(config("quickstart", "gemm.backend=ptx"), cpu(2, &[]), 96);
    assert_eq!(
        refused(on_cpu),
        "error: `gemm.backend` is `ptx`, which is for GPUs\nhint: use `--set gemm.backend=auto`, or `fma`"
    );
    assert_eq!(
        refused(on_card(config("quickstart", "gemm.backend=fma"), "t4")),
        "error: `gemm.backend` is `fma`, which is for CPUs\nhint: use `--set gemm.backend=auto`"
    );
}

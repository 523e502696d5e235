//! Keys that decide how a run is watched, stored and computed.

use super::domain::{COUNT, Domain};
use super::{Key, key};

pub(super) const KEYS: &[Key] = &[
    key(
        "eval",
        "eval_interval",
        COUNT,
        "Steps between evaluations.",
    ),
    key(
        "eval",
        "eval_iters",
        COUNT,
        "Batches per split and evaluation.",
    ),
    key(
        "eval",
        "eval_batch_size",
        COUNT,
        "Sequences per evaluation batch. A loss is the mean of `eval_iters` batches, whatever micro-batch they are computed \
         in.",
    )
    .absent("`train.batch_size`, or nanoGPT's 12 if that is `auto`")
    .own(None),
    key(
        "eval",
        "eval_on_start",
        Domain::Switch,
        "Evaluate before the first step, too, as nanoGPT does; nothing is saved then.",
    )
    .own(None),
    key(
        "eval",
        "eval_only",
        Domain::Switch,
        "Evaluate once and stop.",
    ),
    key(
        "eval",
        "eval_tasks",
        Domain::Path("tasks of `taper eval` with commas between them"),
        "Tasks of `taper eval` that are scored during the run, such as `hellaswag,lambada`.",
    )
    .absent("none")
    .own(None),
    key(
        "eval",
        "eval_tasks_interval",
        COUNT,
        "Steps between two scorings.",
    )
    .absent("`eval_interval`")
    .own(None),
    key(
        "eval",
        "eval_tasks_limit",
        COUNT,
        "The most examples of a task, the first ones.",
    )
    .absent("all")
    .own(None),
    key(
        "checkpoint",
        "out_dir",
        Domain::Path("a folder"),
        "Folder for checkpoints, `metrics.jsonl` and the resolved config.",
    ),
    key(
        "checkpoint",
        "checkpoint_interval",
        COUNT,
        "Steps between checkpoints.",
    )
    .absent("`eval.eval_interval`")
    .own(None),
    key(
        "checkpoint",
        "keep",
        COUNT,
        "Number of the newest checkpoints that stay; the best one always stays as well.",
    )
    .own(None),
    key(
        "checkpoint",
        "tensorboard",
        Domain::Switch,
        "Whether TensorBoard's event files are written beside `metrics.jsonl`.",
    )
    .own(None),
    key(
        "system",
        "device",
        Domain::Device,
        "Device that computes.",
    ),
    key(
        "system",
        "dtype",
        Domain::Choice(&["auto", "float32", "bfloat16", "float16"]),
        "The precision of the computation.",
    ),
    key(
        "system",
        "threads",
        Domain::Whole(1..=4096),
        "CPU threads, at most the cores that the process may use.",
    )
    .absent("all of them")
    .own(None),
    key(
        "system",
        "memory_limit",
        Domain::Size,
        "The most memory of the device that taper may hold, such as `11.69GiB` or a number of bytes.",
    )
    .absent("what is free")
    .own(None),
    key(
        "system",
        "recompute",
        Domain::Choice(&["auto", "none", "gelu+ln", "block"]),
        "Activations that the backward pass computes again instead of keeping them: less memory, same numbers, more work.",
    )
    .own(Some("nanoGPT keeps them all")),
    key(
        "system",
        "tf32",
        Domain::Switch,
        "Whether float32 GEMMs on a GPU may multiply in TF32, with 10 bits of fraction.",
    )
    .own(Some("nanoGPT always allows it")),
    key(
        "system",
        "cuda_graph",
        Domain::Choice(&["auto", "on", "off"]),
        "Whether a GPU does micro-steps from recorded graphs: the same numbers, fewer launches.",
    )
    .own(None),
    key(
        "gemm",
        "autotune",
        Domain::Choice(&["auto", "full", "limited", "off"]),
        "Effort of the search for the fastest GEMM code.",
    )
    .own(None),
    key(
        "gemm",
        "backend",
        Domain::Choice(&["auto", "cublaslt", "ptx", "fma"]),
        "Code that computes GEMMs.",
    )
    .own(Some("nanoGPT's `backend` is PyTorch's between processes")),
];

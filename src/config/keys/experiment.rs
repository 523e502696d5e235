//! Keys that decide which numbers come out: the model, its data, its steps.

use super::domain::{COUNT, Domain, FRACTION, NOT_NEGATIVE, POSITIVE, SIZE, STEPS, ZSCORE};
use super::{Key, key};

const TOKEN_FILES: Domain = Domain::Path("a path or a `*` pattern");

pub(super) const KEYS: &[Key] = &[
    key(
        "model",
        "n_layer",
        Domain::Whole(1..=4096),
        "Transformer blocks.",
    ),
    key(
        "model",
        "n_head",
        SIZE,
        "Attention heads per block; divides `n_embd`.",
    ),
    key("model", "n_embd", SIZE, "Channels of the residual stream."),
    key(
        "model",
        "block_size",
        SIZE,
        "Tokens of context: the length of every training sequence.",
    ),
    key(
        "model",
        "vocab_size",
        // Token files hold 16-bit ids.
        Domain::Whole(1..=65_536),
        "Rows of the token embedding.",
    )
    .absent(
        "the dataset's vocabulary (GPT-2's 50,257 is padded to 50,304, the next multiple of 64, as nanoGPT does)",
    ),
    key(
        "model",
        "bias",
        Domain::Switch,
        "Biases in the linear layers and layer norms: `true` for OpenAI's GPT-2 weights, `false` is a little better and \
         faster from scratch.",
    ),
    key(
        "model",
        "dropout",
        FRACTION,
        "Probability of dropping an activation in training, in [0, 1).",
    ),
    key(
        "model",
        "gelu",
        Domain::Choice(&["tanh", "erf"]),
        "The activation of the MLP: GPT-2 was trained with `tanh`.",
    )
    .own(Some("nanoGPT fixes `erf`")),
    key(
        "data",
        "dataset",
        Domain::Path("the name of a dataset"),
        "A folder below `data_dir` that holds `train.bin` and `val.bin`, or `quickstart`.",
    ),
    key(
        "data",
        "data_dir",
        Domain::Path("a folder"),
        "The folder that holds the datasets.",
    )
    .own(Some("nanoGPT fixes `data`")),
    key(
        "data",
        "train_bin",
        TOKEN_FILES,
        "Training tokens: a path or a pattern (llm.c shards) of `*`, `?`, `[0-9]` and `**`, as in shells.",
    )
    .absent("the `train.bin` of the dataset")
    .own(None),
    key(
        "data",
        "val_bin",
        TOKEN_FILES,
        "Validation tokens: a path or a pattern.",
    )
    .absent("the `val.bin` of the dataset")
    .own(None),
    key(
        "train",
        "init_from",
        Domain::Path(
            "`scratch`, `resume`, `gpt2`, `gpt2-medium`, `gpt2-large`, `gpt2-xl` or a folder",
        ),
        "`scratch`, `resume`, `gpt2`, `gpt2-medium`, `gpt2-large`, `gpt2-xl`, or a folder with a Hugging Face GPT-2 or a \
         taper checkpoint, or nanoGPT's `ckpt.pt`.",
    ),
    key(
        "train",
        "seed",
        Domain::Whole(0..=u64::MAX),
        "Seed of the initial weights, the order of samples and the dropout.",
    )
    .own(Some("nanoGPT fixes 1337")),
    key(
        "train",
        "max_iters",
        STEPS,
        "Optimizer steps in the whole run.",
    ),
    key(
        "train",
        "batch_size",
        Domain::AutoOrCount,
        "Sequences per micro-step. `auto` takes the fastest number that fits. A number is the start, and becomes smaller \
         only where it must (nanoGPT: 12, per micro-step and GPU).",
    ),
    key(
        "train",
        "gradient_accumulation_steps",
        SIZE,
        "Micro-steps per optimizer step as asked for, with a number for `batch_size`: their product is the size of a step, \
         whatever micro-batch it is computed in. Give this or one of the two below, never two of them.",
    )
    .absent(
        "a step is `sequences_per_step` or `tokens_per_step`, else one `batch_size`, or nanoGPT's 12 x 40 = 480 sequences \
         if that is `auto`",
    ),
    key(
        "train",
        "sequences_per_step",
        SIZE,
        "Sequences per optimizer step.",
    )
    .absent("see `gradient_accumulation_steps`")
    .own(None),
    key(
        "train",
        "tokens_per_step",
        COUNT,
        "Tokens per optimizer step, a multiple of `block_size`.",
    )
    .absent("see `gradient_accumulation_steps`")
    .own(None),
    key(
        "train",
        "max_minutes",
        NOT_NEGATIVE,
        "Minutes after which the run saves and ends, counted from the start of the command; 0 is no limit. The step under \
         way is finished, an evaluation is left to the run that goes on.",
    )
    .own(None),
    key(
        "train",
        "log_interval",
        COUNT,
        "Steps between two lines of the log.",
    ),
    key(
        "optimizer",
        "learning_rate",
        POSITIVE,
        "The largest learning rate, reached when the warm-up ends.",
    ),
    key(
        "optimizer",
        "weight_decay",
        NOT_NEGATIVE,
        "Decoupled decay, of matrices and embeddings only.",
    ),
    key(
        "optimizer",
        "beta1",
        FRACTION,
        "AdamW's decay of the first moment, in [0, 1).",
    ),
    key(
        "optimizer",
        "beta2",
        FRACTION,
        "AdamW's decay of the second moment, in [0, 1).",
    ),
    key(
        "optimizer",
        "eps",
        POSITIVE,
        "AdamW's addition to the root of the second moment.",
    )
    .own(Some("nanoGPT leaves it at PyTorch's 1e-8")),
    key(
        "optimizer",
        "grad_clip",
        NOT_NEGATIVE,
        "Largest global gradient norm; 0 turns clipping off.",
    ),
    key(
        "optimizer",
        "decay_lr",
        Domain::Switch,
        "Warm-up, then `lr_schedule`; `false` keeps `learning_rate` throughout, without a warm-up. It goes \
         with no `lr_schedule` but the default.",
    ),
    key(
        "optimizer",
        "lr_schedule",
        Domain::Choice(&["cosine", "linear", "constant", "wsd"]),
        "The learning rate after the warm-up.",
    )
    .own(Some("nanoGPT has the cosine")),
    key(
        "optimizer",
        "warmup_iters",
        STEPS,
        "Steps of linear warm-up, at most `lr_decay_iters`.",
    ),
    key(
        "optimizer",
        "lr_decay_iters",
        STEPS,
        "The step at which the decay reaches `min_lr`; about `max_iters`.",
    ),
    key(
        "optimizer",
        "warmdown_iters",
        STEPS,
        "Steps of the decay of `lr_schedule = \"wsd\"`, the last ones before `lr_decay_iters`.",
    )
    .absent("a fifth of `lr_decay_iters`, as in llm.c, or what the warm-up leaves")
    .own(None),
    key(
        "optimizer",
        "min_lr",
        NOT_NEGATIVE,
        "The smallest learning rate after the decay; about a tenth of `learning_rate`.",
    ),
    key(
        "optimizer",
        "skip_loss_zscore",
        ZSCORE,
        "Leaves out an update whose loss is so many standard deviations above the mean of the last 128 steps; 0 is off \
         (llm.c's `-sl`). On a GPU, every step then waits once more for the device.",
    )
    .own(None),
    key(
        "optimizer",
        "skip_grad_zscore",
        ZSCORE,
        "The same by the norm of the gradient (llm.c's `-sg`).",
    )
    .own(None),
];

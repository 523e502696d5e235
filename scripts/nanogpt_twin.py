#!/usr/bin/env python3
"""A plain PyTorch GPT-2 trainer: what taper's speed and losses are held against.

It does the work of nanoGPT's train.py the way that is usually run: the same model, parameters'
names, initialization, optimizer, schedule and batches, under the same argument names. A preset is
a file of config/, the one that taper itself reads, so that both sides train the same thing.

    scripts/nanogpt_twin.py --preset shakespeare_char_cpu --max_iters 300 --eval_interval 0
    scripts/nanogpt_twin.py --preset openwebtext --max_iters 30 --eval_interval 0 \
        --dtype bfloat16 --compile --search_batch

On a GPU attention, AdamW, TF32 and batches are nanoGPT's fast ones.
Stdout: lines for people, then one line of JSON.
"""

import argparse
import gc
import json
import math
import os
import platform
import resource
import statistics
import sys
import time
import tomllib
from contextlib import nullcontext
from pathlib import Path

try:
    import numpy as np
    import torch
    from nanogpt_model import GPT
except ModuleNotFoundError as missing:
    sys.exit(
        f"error: this Python ({sys.executable}) has no `{missing.name}`\n"
        "hint: run `pip install torch numpy`"
    )

CONFIG = Path(__file__).resolve().parent.parent / "config"
# Iterations of --search_batch for each micro-batch, after those that compile and allocate.
SEARCH_UNTIMED = 2
SEARCH_TIMED = 3

# nanoGPT's names with its defaults, but for data_dir (the folder that holds the datasets), seed,
# log_interval, gelu (taper's key), and sequences_per_step, which stands for
# gradient_accumulation_steps.
DEFAULTS = {
    "data_dir": "data",
    "dataset": "openwebtext",
    "n_layer": 12,
    "n_head": 12,
    "n_embd": 768,
    "block_size": 1024,
    "vocab_size": 0,  # 0: the dataset's
    "bias": False,
    "dropout": 0.0,
    "gelu": "erf",
    "sequences_per_step": 12,
    "batch_size": 0,  # 0: sequences_per_step
    "max_iters": 600_000,
    "eval_interval": 2000,  # 0: never
    "eval_iters": 200,
    "log_interval": 1,
    "learning_rate": 6e-4,
    "weight_decay": 0.1,
    "beta1": 0.9,
    "beta2": 0.95,
    "grad_clip": 1.0,
    "decay_lr": True,
    "warmup_iters": 2000,
    "lr_decay_iters": 600_000,
    "min_lr": 6e-5,
    "seed": 1337,
}


def main():
    args = parse_arguments()
    if args.device == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as nanoGPT allows
    else:
        torch.set_num_threads(available_cores())
    print(f"{device_name(args)}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    tried = []
    if args.search_batch:
        tried = search_batch(args)
        args = with_batch_size(args, max(tried, key=lambda t: t["tokens_per_s"])["batch_size"])
    result = {"batch_size": args.batch_size}
    if args.max_iters:
        try:
            result = train(args)
        except torch.OutOfMemoryError as error:
            sys.exit(
                f"error: micro-batches of {args.batch_size} do not fit: {first_line(error)}\n"
                "hint: give a smaller `--batch_size`, or `--search_batch` to find one"
            )
    print(json.dumps({**result, "tried": tried}))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", help="a name in config/, such as shakespeare_char_cpu")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="[default: cuda if there is one]")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="of autocast"
    )
    parser.add_argument("--compile", action="store_true", help="run it through torch.compile")
    parser.add_argument(
        "--fused", action="store_true", help="use AdamW's fused implementation [always on a GPU]"
    )
    parser.add_argument(
        "--untimed", type=int, default=10, help="first iterations that do not count [default: 10]"
    )
    parser.add_argument(
        "--search_batch",
        metavar="N,N,...",
        nargs="?",
        const="divisors",
        help="first find the fastest of these micro-batches, up to the first that does not fit, "
        "then train with it (with --max_iters 0: do not train) "
        "[alone: every divisor of sequences_per_step]",
    )
    for name, default in DEFAULTS.items():
        kind = switch if isinstance(default, bool) else type(default)
        choices = ["erf", "tanh"] if name == "gelu" else None
        parser.add_argument(f"--{name}", type=kind, default=default, choices=choices)
    preset = parser.parse_known_args()[0].preset
    if preset:
        parser.set_defaults(**read_preset(parser, preset))
    args = parser.parse_args()
    has_cuda = torch.cuda.is_available()
    args.device = args.device or ("cuda" if has_cuda else "cpu")
    if args.device == "cuda" and not has_cuda:
        parser.error(f"torch {torch.__version__} finds no CUDA device; see `nvidia-smi`")
    if args.max_iters <= args.untimed and not (args.search_batch and args.max_iters == 0):
        untimed = f"the first {args.untimed} are not timed"
        parser.error(f"--max_iters must be above {args.untimed}: {untimed}")
    if args.search_batch and args.batch_size:
        parser.error("give one of --batch_size and --search_batch")
    args.search_batch = batches_to_search(parser, args)
    sizes = args.search_batch or [args.batch_size or args.sequences_per_step]
    if any(size < 1 or args.sequences_per_step % size for size in sizes):
        parser.error(f"a micro-batch must divide {args.sequences_per_step}, the sequences per step")
    return with_batch_size(args, sizes[0])


def batches_to_search(parser, args):
    if args.search_batch is None:
        return []
    sequences = args.sequences_per_step
    if args.search_batch == "divisors":
        return [size for size in range(1, sequences + 1) if sequences % size == 0]
    try:
        return sorted(int(size) for size in args.search_batch.split(","))
    except ValueError:
        parser.error(f"--search_batch is `{args.search_batch}`; expected numbers such as 8,16,32")


def with_batch_size(args, batch_size):
    accumulation = args.sequences_per_step // batch_size
    changed = {"batch_size": batch_size, "gradient_accumulation_steps": accumulation}
    return argparse.Namespace(**{**vars(args), **changed})


def switch(text):
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"`{text}` is neither true nor false")
    return text.lower() == "true"


def read_preset(parser, name):
    """The preset's keys that this trainer has; the others (where to save, ...) change no step."""
    path = CONFIG / f"{name}.toml"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in CONFIG.glob("*.toml")))
        parser.error(f"no preset `{name}`; there are {names}")
    sections = tomllib.loads(path.read_text()).values()
    keys = {key: value for section in sections for key, value in section.items()}
    return {key: value for key, value in keys.items() if key in DEFAULTS}


def available_cores():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device_name(args):
    if args.device == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def first_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0]


class Data:
    """Files of 16-bit tokens; batches start anywhere in them."""

    def __init__(self, args):
        self.device = args.device
        self.folder = Path(args.data_dir) / args.dataset
        self.shape = (args.batch_size, args.block_size)
        for split in ("train", "val"):
            if not (self.folder / f"{split}.bin").is_file():
                sys.exit(
                    f"error: no `{split}.bin` in `{self.folder}`\n"
                    f"hint: run `taper prepare {args.dataset}`"
                )

    @property
    def vocab_size(self):
        meta = self.folder / "meta.json"
        size = json.loads(meta.read_text())["vocab_size"] if meta.is_file() else 50257
        # As nanoGPT pads GPT-2's, to a multiple of 64.
        return 50304 if size == 50257 else size

    def batch(self, split):
        """Inputs (B, T) and the tokens that follow them (B, T), on the device."""
        batch_size, block_size = self.shape
        # Mapped anew for each batch, as nanoGPT does so that the map's pages do not pile up.
        tokens = np.memmap(self.folder / f"{split}.bin", dtype=np.uint16, mode="r")
        starts = torch.randint(len(tokens) - block_size, (batch_size,)).tolist()
        windows = np.stack([tokens[s : s + block_size + 1] for s in starts])
        windows = torch.from_numpy(windows.astype(np.int64))  # (B, T + 1)
        inputs, targets = windows[:, :-1].contiguous(), windows[:, 1:].contiguous()
        if self.device == "cpu":
            return inputs, targets
        # From pinned memory the program goes on while they are copied.
        pinned = inputs.pin_memory(), targets.pin_memory()
        return tuple(tokens.to("cuda", non_blocking=True) for tokens in pinned)


def make_optimizer(model, args):
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": args.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    betas = (args.beta1, args.beta2)
    fused = args.fused or args.device == "cuda"
    return torch.optim.AdamW(groups, lr=args.learning_rate, betas=betas, fused=fused)


def learning_rate(step, args):
    """Linear warm-up, then half a cosine down to min_lr; `step` counts from 0."""
    if not args.decay_lr:
        return args.learning_rate
    if step < args.warmup_iters:
        return args.learning_rate * (step + 1) / (args.warmup_iters + 1)
    if step >= args.lr_decay_iters:
        return args.min_lr
    progress = (step - args.warmup_iters) / (args.lr_decay_iters - args.warmup_iters)
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    return args.min_lr + cosine * (args.learning_rate - args.min_lr)


class Trainer:
    """A model with its optimizer and its data."""

    def __init__(self, args):
        torch.manual_seed(args.seed)
        self.args = args
        self.data = Data(args)
        self.model = GPT(args, args.vocab_size or self.data.vocab_size).to(args.device)
        self.optimizer = make_optimizer(self.model, args)
        # Changes nothing but for float16.
        self.scaler = torch.amp.GradScaler(args.device, enabled=args.dtype == "float16")
        # The compiled module shares the parameters.
        self.runner = torch.compile(self.model) if args.compile else self.model
        self.upcoming = self.data.batch("train")

    def update(self, rate):
        """One optimizer step; gives the mean loss of its micro-batches and its milliseconds."""
        start = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total = 0.0
        for _ in range(self.args.gradient_accumulation_steps):
            with precision(self.args):
                loss = self.runner(*self.upcoming) / self.args.gradient_accumulation_steps
            # While a GPU computes.
            self.upcoming = self.data.batch("train")
            self.scaler.scale(loss).backward()
            total += loss.detach().double()
        if self.args.grad_clip:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.args.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        total = total.item()
        if self.args.device == "cuda":
            torch.cuda.synchronize()
        return total, 1e3 * (time.perf_counter() - start)

    @torch.no_grad()
    def estimate_loss(self):
        """The mean loss of `eval_iters` random batches of each split."""
        self.model.eval()
        means = {}
        for split in ("train", "val"):
            with precision(self.args):
                batches = (self.data.batch(split) for _ in range(self.args.eval_iters))
                means[split] = statistics.fmean(self.runner(*batch).item() for batch in batches)
        self.model.train()
        return means


def precision(args):
    if args.dtype == "float32":
        return nullcontext()
    return torch.autocast(args.device, dtype=getattr(torch, args.dtype))


def search_batch(args):
    """Times each micro-batch, from small to large, up to the first that fails: it did not fit."""
    tried = []
    tokens = args.sequences_per_step * args.block_size
    for batch_size in args.search_batch:
        failure = None
        try:
            ms = statistics.median(trial_ms(with_batch_size(args, batch_size)))
        except RuntimeError as error:  # torch.OutOfMemoryError is one; others tell of their limits
            failure = f"{type(error).__name__}: {first_line(error)}"
        peaks = cuda_peaks(args)
        forget_trial(args)
        if failure:
            print(f"micro-batch {batch_size:>4}: {failure}", flush=True)
            break
        rate = 1e3 * tokens / ms
        tried.append({"batch_size": batch_size, "tokens_per_s": round(rate, 1), **peaks})
        reserved = peaks["peak_reserved_bytes"]
        memory = "" if reserved is None else f", {reserved / 1e9:.1f} GB reserved"
        print(f"micro-batch {batch_size:>4}: {rate:>11,.0f} tok/s{memory}", flush=True)
    if not tried:
        sys.exit(
            f"error: the smallest micro-batch tried, {batch_size}, failed: {failure}\n"
            "hint: name smaller ones, such as `--search_batch 1,2`"
        )
    return tried


def trial_ms(args):
    trainer = Trainer(args)
    updates = [trainer.update(args.learning_rate) for _ in range(SEARCH_UNTIMED + SEARCH_TIMED)]
    return [ms for _, ms in updates[SEARCH_UNTIMED:]]


def forget_trial(args):
    # Else the next micro-batch would be compiled for any size, which is slower.
    torch.compiler.reset()
    gc.collect()
    if args.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def train(args):
    trainer = Trainer(args)
    parameters = sum(p.numel() for p in trainer.model.parameters())
    print(f"{parameters:,} parameters, vocabulary of {trainer.model.vocab_size}")
    times_ms, val_losses = [], []
    for step in range(args.max_iters + 1):
        last = step == args.max_iters
        if args.eval_interval and (last or step % args.eval_interval == 0):
            losses = trainer.estimate_loss()
            val_losses.append(losses["val"])
            print(f"step {step}: train loss {losses['train']:.4f}, val loss {losses['val']:.4f}")
        if last:
            return summary(times_ms, val_losses, args)
        loss, ms = trainer.update(learning_rate(step, args))
        times_ms.append(ms)
        if step % args.log_interval == 0:
            print(f"iter {step}: loss {loss:.4f}, time {ms:.2f} ms", flush=True)


def summary(times_ms, val_losses, args):
    ms = statistics.median(times_ms[args.untimed :])
    tokens = args.sequences_per_step * args.block_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_bytes = peak if sys.platform == "darwin" else 1024 * peak
    return {
        "ms_per_iter": round(ms, 3),
        "tokens_per_iter": tokens,
        "tokens_per_s": round(1e3 * tokens / ms, 1),
        "best_val_loss": min(val_losses, default=None),
        "peak_rss_mb": round(peak_bytes / 1e6, 1),
        **cuda_peaks(args),
        "device": device_name(args),
        "torch": torch.__version__,
        "dtype": args.dtype,
        "compile": args.compile,
        "batch_size": args.batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
    }


def cuda_peaks(args):
    """The most that PyTorch's tensors took of a GPU, and the most that it kept for them."""
    gpu = args.device == "cuda"
    return {
        "peak_allocated_bytes": torch.cuda.max_memory_allocated() if gpu else None,
        "peak_reserved_bytes": torch.cuda.max_memory_reserved() if gpu else None,
    }


if __name__ == "__main__":
    main()

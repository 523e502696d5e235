#!/usr/bin/env python3
"""A plain PyTorch GPT-2 trainer for CPUs: what taper's speed and losses are held against.

It does the work of nanoGPT's train.py the way that is usually run: the same model, parameters'
names, initialization, optimizer, schedule and batches, under the same argument names. A preset is
a file of config/, the one that taper itself reads, so that both sides train the same thing.

    scripts/nanogpt_twin.py --preset shakespeare_char_cpu --max_iters 300 --eval_interval 0

Stdout: lines for people, then one line of JSON.
"""

import argparse
import json
import math
import os
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
    from torch import nn
    from torch.nn import functional as F
except ModuleNotFoundError as missing:
    sys.exit(
        f"error: this Python ({sys.executable}) has no `{missing.name}`\n"
        "hint: run `pip install torch numpy`"
    )

CONFIG = Path(__file__).resolve().parent.parent / "config"
# Iterations that do not count: memory and caches are cold, --compile compiles.
UNTIMED = 10

# nanoGPT's names with its defaults, but for data_dir (the folder that holds the datasets), seed,
# log_interval, and sequences_per_step, which stands for gradient_accumulation_steps.
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
    torch.manual_seed(args.seed)
    torch.set_num_threads(available_cores())
    data = Data(args)
    model = GPT(args, args.vocab_size or data.vocab_size)
    parameters = sum(p.numel() for p in model.parameters())
    print(
        f"{parameters:,} parameters, vocabulary of {model.vocab_size}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    optimizer = make_optimizer(model, args)
    # The compiled module shares the parameters.
    runner = torch.compile(model) if args.compile else model
    print(json.dumps(train(runner, optimizer, data, args)))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", help="a name in config/, such as shakespeare_char_cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--compile", action="store_true", help="run the model through torch.compile")
    parser.add_argument("--fused", action="store_true", help="use AdamW's fused implementation")
    for name, default in DEFAULTS.items():
        kind = switch if isinstance(default, bool) else type(default)
        parser.add_argument(f"--{name}", type=kind, default=default)
    preset = parser.parse_known_args()[0].preset
    if preset:
        parser.set_defaults(**read_preset(parser, preset))
    args = parser.parse_args()
    if args.max_iters <= UNTIMED:
        parser.error(f"--max_iters must be above {UNTIMED}: the first {UNTIMED} are not timed")
    args.batch_size = args.batch_size or args.sequences_per_step
    args.gradient_accumulation_steps, rest = divmod(args.sequences_per_step, args.batch_size)
    if rest or args.gradient_accumulation_steps == 0:
        parser.error(f"--batch_size must divide {args.sequences_per_step}, the sequences per step")
    return args


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


class Data:
    """Files of 16-bit tokens; batches start anywhere in them."""

    def __init__(self, args):
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
        """Inputs (B, T) and the tokens that follow them (B, T)."""
        batch_size, block_size = self.shape
        # Mapped anew for each batch, as nanoGPT does so that the map's pages do not pile up.
        tokens = np.memmap(self.folder / f"{split}.bin", dtype=np.uint16, mode="r")
        starts = torch.randint(len(tokens) - block_size, (batch_size,)).tolist()
        windows = np.stack([tokens[s : s + block_size + 1] for s in starts])
        windows = torch.from_numpy(windows.astype(np.int64))  # (B, T + 1)
        return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


class Attention(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.n_head = args.n_head
        self.dropout = args.dropout
        self.c_attn = nn.Linear(args.n_embd, 3 * args.n_embd, bias=args.bias)
        self.c_proj = nn.Linear(args.n_embd, args.n_embd, bias=args.bias)
        self.resid_dropout = nn.Dropout(args.dropout)

    def forward(self, x):  # (B, T, C)
        B, T, C = x.shape
        qkv = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()  # (B, H, T, D) each
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        y = y.transpose(1, 2).reshape(B, T, C)
        return self.resid_dropout(self.c_proj(y))


class MLP(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.c_fc = nn.Linear(args.n_embd, 4 * args.n_embd, bias=args.bias)
        self.c_proj = nn.Linear(4 * args.n_embd, args.n_embd, bias=args.bias)
        self.dropout = nn.Dropout(args.dropout)

    def forward(self, x):  # (B, T, C)
        return self.dropout(self.c_proj(F.gelu(self.c_fc(x))))


class Block(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.ln_1 = nn.LayerNorm(args.n_embd, bias=args.bias)
        self.attn = Attention(args)
        self.ln_2 = nn.LayerNorm(args.n_embd, bias=args.bias)
        self.mlp = MLP(args)

    def forward(self, x):  # (B, T, C)
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """GPT-2 with its head tied to the token embedding; forward gives the mean loss in nats."""

    def __init__(self, args, vocab_size):
        super().__init__()
        self.vocab_size = vocab_size
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocab_size, args.n_embd),
                "wpe": nn.Embedding(args.block_size, args.n_embd),
                "drop": nn.Dropout(args.dropout),
                "h": nn.ModuleList(Block(args) for _ in range(args.n_layer)),
                "ln_f": nn.LayerNorm(args.n_embd, bias=args.bias),
            }
        )
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                # GPT-2: the 2 L layers that write to the residual stream start smaller.
                residual = name.endswith("c_proj.weight")
                std = 0.02 / math.sqrt(2 * args.n_layer) if residual else 0.02
                nn.init.normal_(parameter, std=std)

    def forward(self, inputs, targets):  # (B, T) each
        parts = self.transformer
        positions = torch.arange(inputs.shape[1])
        x = parts["drop"](parts["wte"](inputs) + parts["wpe"](positions))
        for block in parts["h"]:
            x = block(x)
        logits = F.linear(parts["ln_f"](x), parts["wte"].weight)  # (B, T, V)
        return F.cross_entropy(logits.view(-1, self.vocab_size), targets.view(-1))


def make_optimizer(model, args):
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": args.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    betas = (args.beta1, args.beta2)
    return torch.optim.AdamW(groups, lr=args.learning_rate, betas=betas, fused=args.fused)


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


def train(model, optimizer, data, args):
    times_ms, val_losses = [], []
    for step in range(args.max_iters + 1):
        last = step == args.max_iters
        if args.eval_interval and (last or step % args.eval_interval == 0):
            losses = estimate_loss(model, data, args)
            val_losses.append(losses["val"])
            print(f"step {step}: train loss {losses['train']:.4f}, val loss {losses['val']:.4f}")
        if last:
            return summary(times_ms, val_losses, args)
        start = time.perf_counter()
        loss = update(model, optimizer, learning_rate(step, args), data, args)
        times_ms.append(1e3 * (time.perf_counter() - start))
        if step % args.log_interval == 0:
            print(f"iter {step}: loss {loss:.4f}, time {times_ms[-1]:.2f} ms", flush=True)


def update(model, optimizer, rate, data, args):
    """One optimizer step; gives the mean loss of its micro-batches."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    total = 0.0
    for _ in range(args.gradient_accumulation_steps):
        inputs, targets = data.batch("train")
        with precision(args):
            loss = model(inputs, targets) / args.gradient_accumulation_steps
        loss.backward()
        total += loss.item()
    if args.grad_clip:
        nn.utils.clip_grad_norm_(model.parameters(), args.grad_clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total


@torch.no_grad()
def estimate_loss(model, data, args):
    """The mean loss of `eval_iters` random batches of each split."""
    model.eval()
    means = {}
    for split in ("train", "val"):
        with precision(args):
            losses = [model(*data.batch(split)).item() for _ in range(args.eval_iters)]
        means[split] = statistics.fmean(losses)
    model.train()
    return means


def precision(args):
    if args.dtype == "float32":
        return nullcontext()
    return torch.autocast("cpu", dtype=getattr(torch, args.dtype))


def summary(times_ms, val_losses, args):
    ms = statistics.median(times_ms[UNTIMED:])
    tokens = args.gradient_accumulation_steps * args.batch_size * args.block_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_bytes = peak if sys.platform == "darwin" else 1024 * peak
    return {
        "ms_per_iter": round(ms, 3),
        "tokens_per_s": round(1e3 * tokens / ms, 1),
        "best_val_loss": min(val_losses, default=None),
        "peak_rss_mb": round(peak_bytes / 1e6, 1),
    }


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What a card reaches at best, by PyTorch: large products, a copy, a step's own products, and attention.

A line of JSON for each, as it is measured: medians of timings by the GPU's clock over random data, after a warm-up.
scripts/gpu_check runs it; `--device cpu` only tries it out.
"""

import argparse
import json
import statistics
import time

import torch
from torch.nn import functional as F

WARM_UP_SECONDS = 0.3
TIMINGS = 9
# Of the call in one timing, so that what Python takes to start one hides behind the others.
CALLS = 10
# GPT-2 124M at a micro-batch of 96 sequences of 1,024 tokens: M, N, K; rows by columns, whatever a step transposes.
ROWS, CHANNELS, VOCABULARY, CHUNK = 96 * 1024, 768, 50304, 9856
PRODUCTS = {
    "c_attn": (ROWS, 3 * CHANNELS, CHANNELS),
    "attn.c_proj": (ROWS, CHANNELS, CHANNELS),
    "c_fc": (ROWS, 4 * CHANNELS, CHANNELS),
    "mlp.c_proj": (ROWS, CHANNELS, 4 * CHANNELS),
    "logits": (CHUNK, VOCABULARY, CHANNELS),
    "logits dX": (CHUNK, CHANNELS, VOCABULARY),
    "logits dW": (VOCABULARY, CHANNELS, CHUNK),
    "c_fc dW": (4 * CHANNELS, CHANNELS, ROWS),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    device = parser.parse_args().device
    # A processor's are those of toys.
    scale = 1 if device == "cuda" else 64
    side = 8192 // scale
    say("square product", "FLOP/s", 2 * side**3, product(device, side, side, side))
    elements = (1 << 30) // scale
    source = torch.rand(elements, device=device)
    target = torch.empty_like(source)
    say("copy", "B/s", 2 * source.nbytes, seconds(device, lambda: target.copy_(source)))
    del source, target
    for name, shape in PRODUCTS.items():
        m, n, k = (max(size // scale, 16) for size in shape)
        say(name, "FLOP/s", 2 * m * n * k, product(device, m, n, k))
    attention(device, 32 // min(scale, 32), 12, 1024 // scale, 64)


def product(device, m, n, k):
    a = torch.randn(m, k, device=device, dtype=torch.bfloat16)
    b = torch.randn(k, n, device=device, dtype=torch.bfloat16)
    c = torch.empty(m, n, device=device, dtype=torch.bfloat16)
    return seconds(device, lambda: torch.matmul(a, b, out=c))


def attention(device, batch, heads, length, channels):
    shape = (batch, heads, length, channels)
    q, k, v = (torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    gradient = torch.randn(shape, device=device, dtype=torch.bfloat16)

    def forward():
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def both():
        torch.autograd.grad(forward(), (q, k, v), gradient)

    # Two products of (T, T, D) in the forward and five in the backward; half of each is masked.
    flops = 2 * batch * heads * length * length * channels
    ahead = seconds(device, forward)
    say("SDPA forward", "FLOP/s", flops, ahead)
    say("SDPA backward", "FLOP/s", 2.5 * flops, seconds(device, both) - ahead)


def seconds(device, work):
    """The median of a call."""
    end = time.monotonic() + WARM_UP_SECONDS
    while True:
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        if time.monotonic() > end:
            break
    return statistics.median(timing(device, work) for _ in range(TIMINGS))


def timing(device, work):
    """Of one call among several."""
    if device == "cpu":
        start = time.perf_counter()
        for _ in range(CALLS):
            work()
        return (time.perf_counter() - start) / CALLS
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(CALLS):
        work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / CALLS


def say(what, unit, amount, took):
    # A difference of two timings may come out as nothing.
    rate = amount / took if took > 0 else None
    print(json.dumps({"what": what, "rate": rate, "unit": unit, "ms": 1e3 * took}), flush=True)


if __name__ == "__main__":
    main()

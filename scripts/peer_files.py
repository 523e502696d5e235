#!/usr/bin/env python3
"""The files that scripts/bench_peers makes for the trainers it compares; takes a Python with numpy.

peer_files.py tokens FOLDER VOCABULARY                train.bin and val.bin, synthetic
peer_files.py shard TOKENS SHARD                      nanoGPT's tokens as an llm.c shard
peer_files.py model FOLDER L H C T VOCABULARY TOKENS  all that llm.c's CPU trainer looks for
"""

import sys
from pathlib import Path

import numpy as np

SYNTHETIC_TOKENS = 20_000_000
# llm.c's own shards have as many. Its offsets are 32-bit: two billion bytes would be too long.
SHARD_TOKENS = 100_000_000


def write_tokens(folder, vocabulary):
    """Random tokens, as frequent as words are in text (Zipf's law), the same ones every time."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(1337)
    weights = 1.0 / (np.arange(vocabulary) + 2.7)
    cumulative = np.cumsum(weights / weights.sum())
    for name, count in (("train.bin", SYNTHETIC_TOKENS), ("val.bin", SYNTHETIC_TOKENS // 20)):
        tokens = np.searchsorted(cumulative, generator.random(count)).clip(max=vocabulary - 1)
        tokens.astype("<u2").tofile(folder / name)


def write_shard(source, shard):
    """llm.c's llmc/dataloader.h: 256 int32 (magic, version, number of tokens), then tokens."""
    tokens = np.fromfile(source, dtype="<u2", count=SHARD_TOKENS)
    shard.parent.mkdir(parents=True, exist_ok=True)
    with open(shard, "wb") as file:
        file.write(header(20240520, 1, len(tokens)))
        tokens.tofile(file)


def write_model(folder, layers, heads, channels, context, vocabulary, tokens):
    """What llm.c's train_gpt2.c opens, all by fixed names in its working folder.

    The weights are random, as GPT-2's are at the start of training.
    """
    padded = 50304 if vocabulary == 50257 else vocabulary
    for split in ("train", "val"):
        write_shard(tokens, folder / f"dev/data/tinyshakespeare/tiny_shakespeare_{split}.bin")
    with open(folder / "gpt2_tokenizer.bin", "wb") as file:
        # Version 2, with the token that it generates from; each token is one byte long.
        file.write(header(20240328, 2, vocabulary, 0))
        file.write(b"\x01?" * vocabulary)
    with open(folder / "gpt2_124M.bin", "wb") as file:
        file.write(header(20240326, 3, context, vocabulary, layers, heads, channels, padded))
        generator = np.random.default_rng(1337)
        for shape, value in parameters(layers, channels, context, padded):
            if value is None:
                tensor = 0.02 * generator.standard_normal(shape, dtype=np.float32)
            else:
                tensor = np.full(shape, value, dtype=np.float32)
            tensor.tofile(file)


def parameters(L, C, T, V):
    """Shape and initial value of each tensor in llm.c's order; None stands for random."""

    def norm(shape):
        return [(shape, 1), (shape, 0)]

    def linear(inputs, outputs):
        return [((L, outputs, inputs), None), ((L, outputs), 0)]

    embeddings = [((V, C), None), ((T, C), None)]  # wte, wpe
    attention = [*norm((L, C)), *linear(C, 3 * C), *linear(C, C)]  # ln1, qkv, attproj
    mlp = [*norm((L, C)), *linear(C, 4 * C), *linear(4 * C, C)]  # ln2, fc, fcproj
    return [*embeddings, *attention, *mlp, *norm((C,))]  # and lnf


def header(*words):
    return np.array([*words] + [0] * (256 - len(words)), dtype="<i4").tobytes()


def main():
    match sys.argv[1:]:
        case ["tokens", folder, vocabulary]:
            write_tokens(Path(folder), int(vocabulary))
        case ["shard", source, shard]:
            write_shard(Path(source), Path(shard))
        case ["model", folder, *dimensions, tokens] if len(dimensions) == 5:
            write_model(Path(folder), *map(int, dimensions), Path(tokens))
        case _:
            sys.exit(f"error: unknown arguments\nhint: see the top of {sys.argv[0]}")


if __name__ == "__main__":
    main()

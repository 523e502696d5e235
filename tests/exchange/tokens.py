"""Writes a text of every kind of writing, and the ids of its two splits in tiktoken's GPT-2.

    tokens.py TOKENIZER_JSON SOURCE TEXT IDS MEGABYTES

SOURCE is a folder whose files are mixed in. IDS is two files, IDS.train and IDS.val: raw little-endian u16, split
where nanoGPT's data/shakespeare/prepare.py splits.
"""

import json
import random
import sys
import unicodedata
from pathlib import Path

import numpy as np
import tiktoken

# GPT-2's pattern (openai/gpt-2, src/encoder.py).
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def gpt2(tokenizer_json):
    """tiktoken's encoding of the ranks in a Hugging Face tokenizer.json of GPT-2."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    byte_of = {chr(byte): byte for byte in shown}
    hidden = (byte for byte in range(256) if byte not in shown)
    byte_of |= {chr(256 + i): byte for i, byte in enumerate(hidden)}
    vocabulary = json.loads(Path(tokenizer_json).read_text())["model"]["vocab"]
    ranks = {
        bytes(byte_of[c] for c in token): rank
        for token, rank in vocabulary.items()
        if token != "<|endoftext|>"
    }
    return tiktoken.Encoding(
        "gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256}
    )


def block(first, last):
    return [chr(c) for c in range(first, last + 1) if unicodedata.category(chr(c)) != "Cn"]


CJK = block(0x4E00, 0x9FFF)
KANA = block(0x3041, 0x30FF)
HANGUL = block(0xAC00, 0xD7A3)
OTHERS = (
    block(0x0100, 0x058F) + block(0x05D0, 0x06FF) + block(0x0900, 0x0DFF) + block(0x0E01, 0x0EFF)
)
NUMBERS = block(0x0660, 0x0669) + block(0x0966, 0x096F) + list("0123456789½²ⅷ㊿〇一")
EMOJI = block(0x1F300, 0x1F64F) + ["👨\u200d👩\u200d👧", "🏳\ufe0f\u200d🌈", "👍🏽", "🇨🇭", "❤\ufe0f"]
SPACES = list(" \t\n\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000\u200b\ufeff")
CONTROLS = [chr(c) for c in range(0x20) if chr(c) != "\r"] + block(0x7F, 0x9F) + ["\u202e", "\ufffd"]
MARKS = block(0x0300, 0x036F)
APOSTROPHES = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "’s", "''", "'é", "'1"]
PUNCTUATION = list("!?.,;:-_()[]{}<>|/\\\"#$%^&*+=~`") + list("。、「」…—“”·")


def passage(random, words):
    """Some writing of one kind."""
    kinds = [
        (CJK + list("，。！？"), 60, ""),
        (KANA + CJK[:200], 40, ""),
        (HANGUL, 4, " "),
        (OTHERS, 7, " "),
        (OTHERS + MARKS, 5, " "),
        (EMOJI, 6, ""),
        (NUMBERS, 8, " "),
        (SPACES, 5, ""),
        (CONTROLS, 3, " "),
        (PUNCTUATION, 4, " "),
        (APOSTROPHES + list("abcéß日"), 5, ""),
        (SPACES + EMOJI + CJK[:50] + list("ab1.'"), 9, ""),
        (list("aA"), 400, " "),
        (words, 1, " "),
    ]
    alphabet, longest, between = random.choice(kinds)
    count = random.randint(1, 60)
    word = lambda: "".join(random.choices(alphabet, k=random.randint(1, longest)))
    return between.join(word() for _ in range(count))


def main():
    tokenizer_json, source, text_file, ids_file, megabytes = sys.argv[1:]
    chance = random.Random(20240229)
    sources = [path for path in sorted(Path(source).rglob("*")) if path.suffix in (".rs", ".txt", ".md", ".cu")]
    sources = [path.read_text() for path in sources]
    words = sorted({word for text in sources for word in text.split()})
    parts, size = [], 0
    while size < float(megabytes) * 1e6:
        if chance.random() < 0.05:
            text = chance.choice(sources)
            start = chance.randrange(len(text))
            part = text[start : start + 4000]
        else:
            part = passage(chance, words)
        parts.append(part)
        size += len(part.encode())
    text = "".join(parts)
    Path(text_file).write_text(text, newline="")
    encoding = gpt2(tokenizer_json)
    middle = int(len(text) * 0.9)
    counts = {}
    for split, part in [("train", text[:middle]), ("val", text[middle:])]:
        ids = np.array(encoding.encode_ordinary(part), dtype="<u2")
        ids.tofile(f"{ids_file}.{split}")
        counts[split] = len(ids)
    print(json.dumps(counts | {"bytes": size}))


if __name__ == "__main__":
    main()

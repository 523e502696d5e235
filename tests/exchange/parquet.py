"""Writes mixed text to two Parquet files, and prints tiktoken's ids of each document that is not null.

Usage: parquet.py TOKENIZER_JSON PARQUET PARQUET
"""

import json
import random
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import tiktoken

PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


def byte_of_character():
    """GPT-2's bytes_to_unicode, turned round: printable bytes stand for themselves, the others for 256 and up."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


def tiktoken_of(path):
    with open(path, encoding="utf-8") as file:
        vocabulary = json.load(file)["model"]["vocab"]
    bytes_of = byte_of_character()
    ranks = {bytes(bytes_of[c] for c in token): rank for token, rank in vocabulary.items() if token != "<|endoftext|>"}
    return tiktoken.Encoding(
        "gpt2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256}
    )


def documents():
    draw = random.Random(1)
    words = ["the", "don't", "HTTP/1.1", "for(i=0;i<n;++i)", "日本語のテキスト", "敏捷的棕色狐狸", "🙂👩‍👩‍👧‍👦", "Ünïcödé", "\u00a0", "12345",
             "<|endoftext|>", "\x00\x07\x1b[0m", "\r\n", "\t\t", "   ", "\n\n\n", "…—“”", "\u200b", "e\u0301", "العربية", "हिन्दी", "_x_", "'ll", "''s"]
    for n in range(400):
        if n % 17 == 3:
            yield None
        else:
            separator = draw.choice([" ", "", "  ", "\n"])
            yield f"document {n}" + separator.join(draw.choice(words) for _ in range(draw.randrange(400)))


def main():
    vocabulary, first, second = sys.argv[1:]
    texts = list(documents())
    encoding = tiktoken_of(vocabulary)
    halves = [texts[:150], texts[150:]]
    options = [
        {"row_group_size": 40},
        {"row_group_size": 64, "compression": "zstd", "data_page_version": "2.0", "use_dictionary": False, "data_page_size": 5000},
    ]
    for path, half, option in zip([first, second], halves, options):
        table = pa.table({
            "id": list(range(len(half))),
            "text": pa.array(half, pa.large_string() if path == second else pa.string()),
            "meta": [{"url": "u", "tags": ["a", "b"]}] * len(half),
        })
        pq.write_table(table, path, **option)
    print(json.dumps([encoding.encode_ordinary(text) for text in texts if text is not None]))


main()

"""What scripts/bench_peers runs: each trainer's command for the same work, and what it tells."""

import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LLMC_SEARCH_STEPS = 5
# n_layer: n_embd and n_head, which llm.c derives from it (gpt2_set_hyperparameters, train_gpt2.cu).
LLMC_MODELS = {12: (768, 12), 24: (1024, 16), 36: (1280, 20), 48: (1600, 25)}


def fail(what, hint):
    sys.exit(f"error: {what}\nhint: {hint}")


@dataclass
class Program:
    name: str
    command: list[str]
    # Of what it printed: tokens_per_s, tokens_per_step, and whatever else is worth keeping.
    read: Callable[[str], dict]
    folder: Path = ROOT
    environment: dict = field(default_factory=dict)


class Work:
    """What all of them train: a preset with settings on top, as taper spells them, and its data."""

    def __init__(self, preset, settings, iters, untimed, scratch):
        self.preset, self.settings, self.scratch = preset, settings, scratch
        # Of each run; of those the first so many do not count, but all after the first of a short search.
        self.iters, self.untimed = iters, untimed
        sections = tomllib.loads((ROOT / f"config/{preset}.toml").read_text()).values()
        self.keys = {key: value for section in sections for key, value in section.items()}
        for key, value in self.short_settings():
            self.keys[key] = value

    def short_settings(self):
        """Without sections, as nanoGPT spells them, and without taper's own. The last of several counts."""
        pairs = (setting.partition("=") for setting in self.settings if setting[:5] != "gemm.")
        return [(key.split(".")[-1], value) for key, _, value in pairs]

    def number(self, key):
        defaults = {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024}
        try:
            return int(self.keys.get(key, defaults.get(key)))
        except (TypeError, ValueError):
            fail(f"this preset has no number for `{key}`", f"give one: `--set {key}=NUMBER`")

    @property
    def tokens_per_step(self):
        return self.number("sequences_per_step") * self.number("block_size")

    def batches(self, asked):
        """Micro-batches to choose from: those asked for, or the one that is set, or divisors of the
        step's sequences, each at least 1.5 times the last."""
        sequences = self.number("sequences_per_step")
        if asked is None and str(self.keys.get("batch_size", "auto")) != "auto":
            asked = [self.number("batch_size")]
        for size in asked or []:
            if size < 1 or sequences % size:
                fail(
                    f"a micro-batch of {size} does not divide the step's {sequences} sequences",
                    "give divisors, or another step: `--set train.sequences_per_step=512`",
                )
        if asked:
            return sorted(asked)
        chosen = [min(4, sequences)] if sequences % 4 == 0 or sequences < 4 else [1]
        for size in range(chosen[0], sequences + 1):
            if sequences % size == 0 and size >= 1.5 * chosen[-1]:
                chosen.append(size)
        return chosen

    def find_data(self, python, taper):
        """Sets train_bin, and data, which says what that is; makes it where it is missing."""
        dataset, data_dir = str(self.keys.get("dataset")), Path(self.keys.get("data_dir", "data"))
        self.train_bin = ROOT / data_dir / dataset / "train.bin"
        self.data = str(self.train_bin)
        if self.train_bin.is_file():
            return
        if dataset == "openwebtext":
            self.data = f"synthetic tokens, for want of {self.train_bin}"
            self.train_bin = self.scratch / dataset / "train.bin"
            self.settings.append(f"data.data_dir={self.scratch}")
            make_files(python, "tokens", self.train_bin.parent, 50257)
        elif dataset in ("shakespeare", "shakespeare_char") and data_dir == Path("data"):
            make([taper, "prepare", dataset, "--from", "tests/fixtures/tinyshakespeare.txt"])
        else:
            fail(f"there is no `{self.train_bin}`", f"make it with `{taper} prepare`")


def make_files(python, *arguments):
    # Elsewhere: a process of Linux begins with its parent's memory as its own peak.
    make([python, "scripts/peer_files.py", *map(str, arguments)])


def make(command):
    if subprocess.run(command, cwd=ROOT, stdout=sys.stderr).returncode:
        fail("making the data failed (see above)", f"run it alone: `{shlex.join(command)}`")


def taper(work, path):
    # Nothing is evaluated in between, and no more logged than the loss; so it is with the others.
    own = ["train.log_interval=1", "eval.eval_interval=1000000", "eval.eval_iters=1"]
    own += [f"train.max_iters={work.iters}", f"checkpoint.out_dir={work.scratch / 'taper'}"]
    sets = [part for setting in work.settings + own for part in ("--set", setting)]
    command = [path, "train", "--config", f"config/{work.preset}.toml", *sets, "--json", "--quiet"]
    return Program("taper", command, lambda text: read_taper(text, work.untimed))


def read_taper(text, untimed):
    events = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    steps = [event for event in events if event["kind"] == "step"]
    ms = [event["ms"] for event in steps]
    if len(ms) <= untimed:
        fail(
            f"taper printed {len(ms)} steps; expected more than {untimed}",
            "check that TAPER is this source's: unset it",
        )
    tokens = steps[0]["tokens"]
    kept = {event["kind"]: event for event in events if event["kind"] in ("startup", "done")}
    return {**rate(tokens, ms[untimed:]), "ms": ms, "loss": steps[-1]["loss"], **kept}


def rate(tokens, ms):
    return {"tokens_per_s": 1e3 * tokens / statistics.median(ms), "tokens_per_step": tokens}


def pytorch(work, python, arguments, tuned):
    """The twin; without --batch_size the whole step is one micro-batch."""
    command = [python, "scripts/nanogpt_twin.py", "--preset", work.preset]
    command += [f"--{key}={value}" for key, value in work.short_settings()]
    command += [f"--max_iters={work.iters}", f"--untimed={work.untimed}", "--eval_interval=0"]
    command += arguments
    environment = {}
    if tuned:
        command.append("--fused")
        # glibc gives blocks above the threshold back to the kernel and faults them in again.
        environment["MALLOC_MMAP_THRESHOLD_"] = "4294967296"
        environment["MALLOC_TRIM_THRESHOLD_"] = "17179869184"
    return Program("PyTorch", command, read_pytorch, environment=environment)


def read_pytorch(text):
    summary = json.loads(text.splitlines()[-1])
    return {"tokens_per_step": summary.get("tokens_per_iter"), **summary}


def llmc_cuda(work, binary, batch_size, arguments, iters):
    layers, shape = work.number("n_layer"), (work.number("n_embd"), work.number("n_head"))
    context = work.number("block_size")
    if LLMC_MODELS.get(layers) != shape or context > 1024:
        fail(
            "this model is none of llm.c's: GPT-2 of 12, 24, 36 or 48 layers, context up to 1024",
            "choose one: `--preset openwebtext`",
        )
    folder = work.scratch / "llmc"
    # Validation is not timed; `-v 0` would divide by zero. `-r 0`: nothing is computed twice.
    flags = f"-i train.bin -j train.bin -e d{layers} -b {batch_size} -t {context}"
    flags += f" -d {work.tokens_per_step} -x {iters} -v 1000000 -m 1 -s 0 -r 0"
    command = [binary, *flags.split(), *arguments]
    return Program("llm.c", command, lambda text: read_llmc_cuda(text, work, command), folder)


def read_llmc_cuda(text, work, command):
    # step    1/30 | loss 10.9 (+nanz)| norm 15.4 (+nanz)| lr 3.00e-04 | 1079.86 ms | 60.0% ...
    ms = re.findall(r"^step +\d+/\d+ *\|.*?\| *([0-9.]+) ms\b", text, re.MULTILINE)
    # The tables at its start tell device, precision, recompute, ...
    table = dict(re.findall(r"^\| (\S.*?) *\| (\S.*?) *\|$", text, re.MULTILINE))
    timed = llmc_rate(ms, work, command, "step 1/30 | loss ... | 1079.86 ms | ...")
    return {**timed, "batch_size": int(command[command.index("-b") + 1]), "table": table}


def llmc_cpu(work, binary):
    return Program(
        "llm.c", [binary], lambda text: read_llmc_cpu(text, work, binary), work.scratch / "llmc"
    )


def read_llmc_cpu(text, work, binary):
    ms = re.findall(r"^step \d+: train loss \S+ \(took ([0-9.]+) ms\)", text, re.MULTILINE)
    timed = llmc_rate(ms, work, [binary], "step 0: train loss 5.3 (took 4300.0 ms)")
    said = re.search(r"^train dataset num_batches: (\d+)", text, re.MULTILINE)
    shard = work.scratch / "llmc/dev/data/tinyshakespeare/tiny_shakespeare_train.bin"
    expected = (shard.stat().st_size - 1024) // 2 // work.tokens_per_step
    if not said or int(said[1]) != expected:
        found = f"`{said[0]}`" if said else "no `train dataset num_batches`"
        fail(
            f"`{binary}` takes no steps of {work.tokens_per_step} tokens: it says {found}; "
            f"expected {expected}",
            "say the B and T of its source: `--set sequences_per_step=B --set block_size=T`",
        )
    return timed


def llmc_rate(matches, work, command, example):
    ms = [float(match) for match in matches]
    timed = ms[work.untimed :] or ms[1:]
    if not timed:
        fail(
            f"`{command[0]}` printed {len(ms)} steps; expected several lines like `{example}`",
            f"name `train_gpt2cu` for a GPU and `train_gpt2` for a CPU, of a llm.c of 2025; "
            f"or see what it prints: `{shlex.join(command)}`",
        )
    return {**rate(work.tokens_per_step, timed), "ms": ms}


def make_llmc_files(work, python, cpu):
    """All that it opens, in its working folder."""
    folder = work.scratch / "llmc"
    if not cpu:
        make_files(python, "shard", work.train_bin, folder / "train.bin")
        return
    meta = work.train_bin.parent / "meta.json"
    vocabulary = json.loads(meta.read_text())["vocab_size"] if meta.is_file() else 50257
    shape = [work.number(key) for key in ("n_layer", "n_head", "n_embd", "block_size")]
    make_files(python, "model", folder, *shape, vocabulary, work.train_bin)


def cores():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()

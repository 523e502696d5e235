"""The parts of scripts/gpu_check, in the order of their worth: what each runs, and the figures that it keeps."""

import csv
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import peer_programs as peers
from gpu_commands import Missing, Stopped
from gpu_commands import check as check_code

CONFIG = "openwebtext.toml"
# A model for the virtual GPU, which proves results and never speed.
SMALL_CONFIG = "quickstart.toml"
SMALL = "model.n_layer=2 model.n_head=2 model.n_embd=32 model.block_size=32".split()
SEQUENCES, MICRO_BATCH = 192, 96
SMALL_SEQUENCES, SMALL_MICRO_BATCH = 4, 2
# An RTX 3060's.
SMALL_CARD = "11.69GiB"
# Of Nsight Compute: time, throughputs, occupancy, and what warps wait for.
NCU_SECTIONS = ("SpeedOfLight", "Occupancy", "LaunchStats", "WarpStateStats")
NCU_COLUMNS = ("ID", "Kernel Name", "Block Size", "Grid Size", "Metric Name", "Metric Unit", "Metric Value")
# Of the losses of twenty steps in float32, whose gradients are summed in another order at another micro-batch.
F32_APART = 1e-5


@dataclass
class Part:
    name: str
    # Its limit, and what it needs at the least.
    seconds: float
    least: float
    # Gets the check, and a dictionary for its figures, which are kept whatever becomes of the rest.
    work: Callable


def names():
    return [part.name for part in PARTS]


def short(figures):
    """Numbers for one line of the table; the rest is in results.json."""
    simple = {key: value for key, value in figures.items() if isinstance(value, (int, float, str))}
    shown = (f"{key} {value:,.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in simple.items())
    return ", ".join(shown)


def taper(check):
    return check.programs / "taper"


def sets(*settings):
    return [word for setting in settings for word in ("--set", setting)]


def subject(check, *settings):
    """The model that is measured: GPT-2 124M, or a toy."""
    config, small = (SMALL_CONFIG, SMALL) if check.small else (CONFIG, [])
    return ["--config", config, *sets(*small, *settings)]


def bench_step(check, name, figures, *settings, steps=5):
    """Keeps all that `taper bench step` says, and a few figures for the table."""
    command = [taper(check), "bench", "step", "--device", "cuda", "--json", "--steps", steps]
    command += ["--square", 64] if check.small else []
    began = time.monotonic()
    said = json.loads(check.commands.need([*command, *subject(check, *settings)]))
    figures[f"{name} whole s"] = round(time.monotonic() - began, 1)
    said.pop("config")
    said["device"]["hardware"].pop("holders", None)
    figures[f"{name} json"] = [said]
    figures[f"{name} tok/s"] = round(said["tokens_per_second"])
    figures[f"{name} ms"] = round(1e3 * said["median_step_seconds"], 2)
    of_ceiling = said["model_flops_of_ceiling_percent"]
    if of_ceiling is not None:
        figures[f"{name} % of ceiling"] = round(of_ceiling, 1)
    if said["used_of_planned_percent"] is not None:
        figures[f"{name} % of plan used"] = round(said["used_of_planned_percent"], 1)
    return said


def machine(check, figures):
    try:
        check.commands.run(["nvidia-smi", "-q"], 10)
    except FileNotFoundError:
        figures["nvidia-smi"] = "is not there"
    # It exits with 1 where anything is wrong, and says all the same what is there.
    code, stdout = check.commands.run([taper(check), "doctor", "--json"])
    if not stdout.startswith("{"):
        raise Stopped(f"doctor: {code}")
    found = json.loads(stdout)["machine"]
    figures["driver"] = str(found["gpus"].get("driver_version"))
    for library in (found["libraries"] or {}).get("found", []):
        figures[library["name"]] = library["version"]
    gpus = found["gpus"].get("gpus", [])
    if not gpus:
        raise Missing("a GPU")
    figures["gpu"] = gpus[0]["profile"]["name"]


def steps_of(check):
    return (SMALL_SEQUENCES, SMALL_MICRO_BATCH) if check.small else (SEQUENCES, MICRO_BATCH)


def first_step(check, figures):
    sequences, micro_batch = steps_of(check)
    fixed = [f"train.sequences_per_step={sequences}", f"train.batch_size={micro_batch}"]
    bench_step(check, "untuned", figures, *fixed, "gemm.autotune=off")


def python():
    return os.environ.get("PYTHON", "python3")


def python_with_torch(check):
    program = "import numpy, torch; assert torch.cuda.is_available()"
    code, _ = check.commands.run([python(), "-c", program], 40)
    if code == "timed out":
        raise Stopped("PyTorch does not start in 40 s")
    if code:
        raise Missing("a PyTorch that finds the GPU, and numpy")
    return python()


def ceilings(check, figures):
    # A line for each, as they come.
    code, stdout = check.commands.run([python_with_torch(check), "scripts/gpu_ceilings.py"])
    lines = [json.loads(line) for line in stdout.splitlines() if line.startswith("{")]
    figures["ceilings"] = lines
    for line in lines[:2]:
        figures[line["what"]] = f"{line['rate']:.3g} {line['unit']}"
    check_code(code)


def tests(check, figures):
    """The one that looks at the memory of the whole card alone, then the others beside each other."""
    # Without a GPU they would skip themselves, and pass.
    machine(check, {})
    programs = sorted(check.programs.glob("test-*"))
    alone = [program for program in programs if program.name == "test-cuda_training"]
    # The virtual GPU takes minutes for all of them.
    skipped = ["--skip", "parity", "--skip", "every_product"]
    filters = ["every_", "a_lack", *skipped] if check.small else []
    figures["passed"], failed = 0, []

    def run(program):
        code, stdout = check.commands.run([program, "--test-threads", 4, *filters], 60)
        ends = [line for line in stdout.splitlines() if line.startswith("test result: ")]
        figures["passed"] += sum(int(line.split(" passed")[0].split()[-1]) for line in ends)
        if code or not ends:
            failed.append(program.name)
            named = [line for line in stdout.splitlines() if line.endswith("FAILED")]
            figures[f"{program.name} failed"] = [str(code), *named]

    for program in alone:
        run(program)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, [program for program in programs if program not in alone]))
    if failed:
        raise Stopped(f"failed: {', '.join(sorted(failed))}")


def tokens(check):
    """A folder with synthetic tokens of GPT-2's vocabulary; the toy model has text of its own."""
    if check.small:
        return []
    folder = check.work / "data"
    if not folder.is_dir():
        unfinished = check.work / "data.part"
        shutil.rmtree(unfinished, ignore_errors=True)
        make = [python(), "scripts/peer_files.py", "tokens", unfinished / "openwebtext", 50257]
        check.commands.need(make)
        unfinished.rename(folder)
    return [f"data.data_dir={folder}"]


def train(check, out, settings, flags=()):
    """Losses of a run, and a digest of the weights that it left in `out`."""
    quiet = ["eval.eval_interval=1000000", "eval.eval_iters=1", "train.log_interval=1", "optimizer.warmup_iters=4"]
    folder = check.work / "runs" / out
    if "--resume" not in flags:
        shutil.rmtree(folder, ignore_errors=True)
    settings = [*tokens(check), *quiet, f"checkpoint.out_dir={folder}", "system.device=cuda", *settings]
    command = [taper(check), "train", "--json", "--quiet", *subject(check, *settings), *flags]
    events = [json.loads(line) for line in check.commands.need(command).splitlines() if line.startswith("{")]
    losses = [event["loss"] for event in events if event["kind"] == "step"]
    weights = sorted(folder.glob("ckpt-*/model.safetensors"))[-1]
    return losses, hashlib.sha256(weights.read_bytes()).hexdigest(), events


def exactness(check, figures):
    """Eight sequences a step: in micro-batches of eight or four, twice, with and without graphs, and resumed."""
    model = [] if check.small else ["model.n_layer=2"]
    steps = 8 if check.small else 20
    base = [*model, "train.sequences_per_step=8", "gemm.autotune=off", f"train.max_iters={steps}"]

    def run(out, dtype, micro_batch, graph="on", more=(), flags=()):
        how = [f"system.dtype={dtype}", f"train.batch_size={micro_batch}", f"system.cuda_graph={graph}"]
        return train(check, out, [*base, *how, *more], flags)[:2]

    wide, narrow = run("f32-8", "float32", 8), run("f32-4", "float32", 4)
    figures["f32 at two micro-batches"] = furthest(wide, narrow)
    first, second = run("bf16-8", "bfloat16", 8), run("bf16-8b", "bfloat16", 8)
    figures["bf16 twice"] = compared(first, second)
    plain = run("bf16-plain", "bfloat16", 8, "off")
    figures["without graphs"] = compared(first, plain)
    figures["bf16 at two micro-batches"] = furthest(first, run("bf16-4", "bfloat16", 4))
    half = [f"train.max_iters={steps // 2}"]
    run("bf16-resumed", "bfloat16", 8, more=half)
    resumed = run("bf16-resumed", "bfloat16", 8, flags=["--resume"])
    figures["resumed"] = "same bits" if resumed[1] == first[1] else "other weights"
    wanted = ("bf16 twice", "without graphs", "resumed")
    differing = [key for key in wanted if figures[key] != "same bits"]
    if figures["f32 at two micro-batches"] > F32_APART:
        differing.append("f32 at two micro-batches")
    if differing:
        raise Stopped(f"not exact: {', '.join(differing)}")


def compared(one, other):
    return "same bits" if one == other else f"{furthest(one, other):.2g} nats apart"


def furthest(one, other):
    """The largest difference of two losses of one step, in nats."""
    return max(abs(a - b) for a, b in zip(one[0], other[0], strict=True))


def twin(check, figures):
    """PyTorch at one micro-batch, then at another while there is time: each is compiled first."""
    program = [python_with_torch(check), "scripts/nanogpt_twin.py", "--preset", "openwebtext"]
    program += [*sets_of_twin(tokens(check)), f"--sequences_per_step={SEQUENCES}", "--dtype=bfloat16"]
    program += ["--compile", "--max_iters=15", "--untimed=5", "--eval_interval=0"]
    for micro_batch in (32, 64):
        code, stdout = check.commands.run([*program, f"--batch_size={micro_batch}"])
        lines = [line for line in stdout.splitlines() if line.startswith("{")]
        if not code and lines:
            said = json.loads(lines[-1])
            figures[f"PyTorch {micro_batch} json"] = [said]
            figures[f"PyTorch {micro_batch} tok/s"] = round(said["tokens_per_s"])
        else:
            figures[f"PyTorch {micro_batch}"] = str(code)
    if not any(key.endswith("tok/s") for key in figures):
        raise Stopped("PyTorch gave no rate")


def sets_of_twin(settings):
    return [f"--{key.split('.')[1]}={value}" for key, _, value in (each.partition("=") for each in settings)]


def llmc(check, figures):
    binary = Path(os.environ.get("LLMC", check.programs / "train_gpt2cu")).resolve()
    if not binary.is_file():
        raise Missing("llm.c's train_gpt2cu: name it in LLMC")
    train_bin = Path(tokens(check)[0].partition("=")[2]) / "openwebtext/train.bin"
    settings = [f"train.sequences_per_step={SEQUENCES}", "model.gelu=tanh", "model.bias=true"]
    work = peers.Work("openwebtext", settings, 15, 5, check.work)
    shard = check.work / "llmc/train.bin"
    check.commands.need([python(), "scripts/peer_files.py", "shard", train_bin, shard])
    program = peers.llmc_cuda(work, str(binary), 64, [], work.iters)
    said = program.read(check.commands.need(["env", f"--chdir={program.folder}", *program.command]))
    figures["llm.c json"] = [said]
    figures["llm.c tok/s"] = round(said["tokens_per_s"])


def tuned(check, figures):
    """As a user trains: after the search, which the cache then spares."""
    sequences, micro_batch = steps_of(check)
    fixed = [f"train.sequences_per_step={sequences}", f"train.batch_size={micro_batch}"]
    bench_step(check, "tuned", figures, *fixed, steps=10)
    bench_step(check, "again", figures, *fixed)
    tanh = ["model.bias=true", "model.gelu=tanh"]
    bench_step(check, "bias tanh", figures, *fixed, *tanh, steps=10)
    command = [taper(check), "bench", "gemm", "--device", "cuda", *subject(check, *fixed, "gemm.autotune=auto")]
    text = check.commands.need([*command, *(["--square", "64"] if check.small else [])])
    figures["gemm"] = text.splitlines()


def small_card(check, figures):
    """64 x 1024, which ends nanoGPT on a 12 GB card, inside such a card's memory."""
    sequences = SMALL_SEQUENCES if check.small else 64
    settings = [f"train.sequences_per_step={sequences}", f"system.memory_limit={SMALL_CARD}"]
    said = bench_step(check, SMALL_CARD, figures, *settings, steps=20)
    figures["micro-batch"] = said["rung"]["micro_batch"]
    figures["used GiB"] = round((said["used_bytes"] or 0) / 2**30, 2)


def neighbour(check, figures):
    """Somebody takes most of the card between taper's plan and its first allocation."""
    holder = [python_with_torch(check), "scripts/gpu_neighbour.py", "--leave", "8"]
    sequences = SMALL_SEQUENCES if check.small else 64
    check.commands.background(holder, "are free")
    settings = [f"train.sequences_per_step={sequences}", "train.max_iters=5", "gemm.autotune=off"]
    losses, _, events = train(check, "neighbour", settings)
    recoveries = [event for event in events if event["kind"] == "recovery"]
    figures["recoveries"], figures["steps"] = len(recoveries), len(losses)
    figures["events"] = recoveries
    if not recoveries:
        raise Stopped("taper was not refused any memory")


def ncu(check, figures):
    """What bounds each kernel of a step of one layer. The card's clocks are left alone."""
    sequences = SMALL_SEQUENCES if check.small else 32
    settings = [f"train.sequences_per_step={sequences}", "model.n_layer=1", "gemm.autotune=off", "system.cuda_graph=off"]
    step = [taper(check), "bench", "step", "--device", "cuda", "--json", "--steps", 1, "--square", 64]
    profile = ["ncu", "--csv", "--clock-control", "none", "--print-units", "base", "--launch-count", 80]
    profile += [word for section in NCU_SECTIONS for word in ("--section", section)]
    try:
        code, stdout = check.commands.run([*profile, "--kill", "yes", *step, *subject(check, *settings)])
    except FileNotFoundError:
        raise Missing("ncu (Nsight Compute)") from None
    figures["exit"] = str(code)
    rows = ncu_rows(stdout)
    with open(check.out / "ncu.csv", "w", newline="") as file:
        table = csv.DictWriter(file, NCU_COLUMNS, extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
    figures["kernels"] = kernels_of(rows)
    figures["measured"] = len(figures["kernels"])
    if not rows:
        raise Stopped(f"ncu measured nothing, exit {code}")


def ncu_rows(stdout):
    """Rows of the table that ncu prints among other lines."""
    start = stdout.find('"ID"')
    lines = [line for line in stdout[max(start, 0) :].splitlines() if line.startswith('"')]
    rows = csv.DictReader(io.StringIO("\n".join(lines if start >= 0 else [])))
    return [row for row in rows if row.get("Metric Name") and row.get("Kernel Name")]


def kernels_of(rows):
    """By name, the launch that took the longest: its metrics."""
    launches = {}
    for row in rows:
        metrics = launches.setdefault((row["ID"], row["Kernel Name"]), {})
        try:
            metrics[row["Metric Name"]] = float(row["Metric Value"].replace(",", ""))
        except ValueError:  # "n/a", or a word
            continue
    longest = {}
    for (_, name), metrics in launches.items():
        if metrics.get("Duration", 0) >= longest.get(name, {}).get("Duration", 0):
            longest[name] = metrics
    return [{"kernel": name, **metrics} for name, metrics in longest.items()]


def sanitizer(check, figures):
    """Every access of a small step."""
    small = [*sets(*SMALL), *sets("train.sequences_per_step=2", "gemm.autotune=off")]
    step = [taper(check), "bench", "step", "--device", "cuda", "--json", "--steps", 1, "--square", 64]
    command = ["compute-sanitizer", "--tool", "memcheck", "--error-exitcode", 9]
    try:
        stdout = check.commands.need([*command, *step, "--config", SMALL_CONFIG, *small])
    except FileNotFoundError:
        raise Missing("compute-sanitizer") from None
    said = [line for line in stdout.splitlines() if "ERROR SUMMARY" in line]
    figures["memcheck"] = said[-1].strip("= ") if said else "said nothing"
    if "0 errors" not in figures["memcheck"]:
        raise Stopped("no clean summary")


PARTS = [
    Part("machine", 15, 2, machine),
    Part("first step", 40, 5, first_step),
    Part("ceilings", 25, 5, ceilings),
    Part("tests", 50, 10, tests),
    Part("exactness", 45, 10, exactness),
    Part("twin", 85, 20, twin),
    Part("llm.c", 35, 10, llmc),
    Part("tuned", 70, 10, tuned),
    Part("small card", 20, 5, small_card),
    Part("neighbour", 15, 5, neighbour),
    Part("ncu", 70, 10, ncu),
    Part("sanitizer", 40, 5, sanitizer),
]

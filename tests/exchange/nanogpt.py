"""Trains nanoGPT's model in PyTorch and writes its checkpoint, or goes on with one, as nanoGPT's train.py does.

nanogpt.py write CKPT TRAIN_BIN SETTINGS   five steps, then CKPT, then ten more: prints their losses
nanogpt.py resume CKPT TRAIN_BIN           ten steps from CKPT, read with weights_only=True: prints their losses

SETTINGS is JSON. `train.bin` holds one window of tokens, so that every sequence of every batch is that window.
"""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from nanogpt_model import GPT  # noqa: E402

ARGS = ["n_layer", "n_head", "n_embd", "block_size", "bias", "vocab_size", "dropout"]


class NanoGPT(GPT):
    """GPT whose head is a module with the embedding's weight, as in nanoGPT's model.py."""

    def __init__(self, args):
        super().__init__(SimpleNamespace(**args, gelu="erf"), args["vocab_size"])
        self.lm_head = torch.nn.Linear(args["n_embd"], args["vocab_size"], bias=False)
        self.lm_head.weight = self.transformer["wte"].weight


def configured(model, config):
    """nanoGPT's configure_optimizers."""
    params = {name: p for name, p in model.named_parameters() if p.requires_grad}
    groups = [
        {"params": [p for p in params.values() if p.dim() >= 2], "weight_decay": config["weight_decay"]},
        {"params": [p for p in params.values() if p.dim() < 2], "weight_decay": 0.0},
    ]
    betas = (config["beta1"], config["beta2"])
    return torch.optim.AdamW(groups, lr=config["learning_rate"], betas=betas)


def get_lr(it, c):
    if it < c["warmup_iters"]:
        return c["learning_rate"] * (it + 1) / (c["warmup_iters"] + 1)
    if it > c["lr_decay_iters"]:
        return c["min_lr"]
    ratio = (it - c["warmup_iters"]) / (c["lr_decay_iters"] - c["warmup_iters"])
    return c["min_lr"] + 0.5 * (1.0 + math.cos(math.pi * ratio)) * (c["learning_rate"] - c["min_lr"])


def train(model, optimizer, tokens, config, first, steps):
    losses = []
    T, micro_steps = config["block_size"], config["gradient_accumulation_steps"]
    window = tokens.repeat(config["batch_size"], 1)
    inputs, targets = window[:, :T].contiguous(), window[:, 1:].contiguous()
    for it in range(first, first + steps):
        for group in optimizer.param_groups:
            group["lr"] = get_lr(it, config) if config["decay_lr"] else config["learning_rate"]
        total = 0.0
        for _ in range(micro_steps):
            loss = model(inputs, targets) / micro_steps
            total += loss.item()
            loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config["grad_clip"])
        assert norm > config["grad_clip"], f"the clip is not active: {norm}"
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(total)
    return losses


def read_tokens(path):
    return torch.frombuffer(bytearray(Path(path).read_bytes()), dtype=torch.uint16).long()


def write(path, train_bin, settings):
    config = json.loads(settings)
    prefix = config.pop("prefix")
    torch.manual_seed(1337)
    args = {key: config[key] for key in ARGS}
    model = NanoGPT(args)
    optimizer = configured(model, config)
    tokens = read_tokens(train_bin)
    train(model, optimizer, tokens, config, 0, 5)
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    checkpoint = {
        "model": state,
        "optimizer": optimizer.state_dict(),
        "model_args": args,
        "iter_num": 5,
        "best_val_loss": torch.tensor(3.25),
        "config": {**config, "dataset": "window", "device": "cuda", "compile": True},
    }
    torch.save(checkpoint, path)
    print(json.dumps(train(model, optimizer, tokens, config, 5, 10)))


def resume(path, train_bin):
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    model = NanoGPT(checkpoint["model_args"])
    state = checkpoint["model"]
    for name in list(state):
        if name.startswith("_orig_mod."):
            state[name[len("_orig_mod.") :]] = state.pop(name)
    model.load_state_dict(state)
    config = {**checkpoint["config"], **checkpoint["model_args"]}
    optimizer = configured(model, config)
    optimizer.load_state_dict(checkpoint["optimizer"])
    losses = train(model, optimizer, read_tokens(train_bin), config, checkpoint["iter_num"], 10)
    print(json.dumps({"losses": losses, "best_val_loss": float(checkpoint["best_val_loss"])}))


if __name__ == "__main__":
    {"write": write, "resume": resume}[sys.argv[1]](*sys.argv[2:])

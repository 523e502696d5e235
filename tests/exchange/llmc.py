"""llm.c's model files without taper: written from a transformers GPT-2, and read into one.

    llmc.py write           gpt2_fp32.bin and gpt2_bf16.bin of a random toy, tokens.bin, and transformers' losses
    llmc.py read F32 BF16   loss of the model in F32 on tokens.bin, and whether BF16 is torch's rounding of it
"""

import json
import sys

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

VERSIONS = {3: (np.dtype("<f4"), torch.float32), 5: (np.dtype("<u2"), torch.bfloat16)}
BLOCK = ["ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight",
         "attn.c_proj.bias", "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight",
         "mlp.c_proj.bias"]


def order(layers):
    """Names of transformers' tensors in the order of the file."""
    blocks = [f"h.{layer}.{name}" for name in BLOCK for layer in range(layers)]
    return ["wte.weight", "wpe.weight", *blocks, "ln_f.weight", "ln_f.bias"]


def is_conv1d(name):
    return name.startswith("h.") and name.endswith(".weight") and ".ln_" not in name


def toy(**sizes):
    config = GPT2Config(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=None, eos_token_id=None, **sizes)
    return GPT2LMHeadModel(config).eval()


def loss(model):
    """Mean loss of the one window of tokens.bin."""
    tokens = torch.from_numpy(np.fromfile("tokens.bin", dtype="<u2").astype(np.int64))
    with torch.no_grad():
        logits = model(tokens[None, :-1]).logits[0]
    return torch.nn.functional.cross_entropy(logits, tokens[1:]).item()


def write_model(model, path, version):
    config = model.config
    _, dtype = VERSIONS[version]
    padded = -(-config.vocab_size // 128) * 128
    header = np.zeros(256, dtype="<i4")
    header[:8] = [20240326, version, config.n_positions, config.vocab_size, config.n_layer, config.n_head,
                  config.n_embd, padded]
    state = model.transformer.state_dict()
    with open(path, "wb") as file:
        file.write(header.tobytes())
        for name in order(config.n_layer):
            tensor = state[name].to(dtype)
            if name == "wte.weight":
                tensor = torch.cat([tensor, torch.zeros(padded - len(tensor), config.n_embd, dtype=dtype)])
            if is_conv1d(name):
                tensor = tensor.T
            bits = tensor.contiguous().view(torch.int32 if version == 3 else torch.int16)
            file.write(bits.numpy().tobytes())


def read_model(path):
    """The sizes in a file and its raw tensors by name, of the file's type."""
    with open(path, "rb") as file:
        header = np.fromfile(file, dtype="<i4", count=256)
        magic, version, positions, vocab, layers, heads, channels, padded = header[:8].tolist()
        assert magic == 20240326 and padded % 128 == 0 and padded >= vocab, header[:8]
        assert not header[8:].any()
        numpy_type, dtype = VERSIONS[version]
        model = toy(n_positions=positions, vocab_size=vocab, n_layer=layers, n_head=heads, n_embd=channels)
        state = model.transformer.state_dict()
        tensors = {}
        for name in order(layers):
            shape = list(state[name].shape)
            if name == "wte.weight":
                shape[0] = padded
            if is_conv1d(name):
                shape.reverse()
            raw = np.fromfile(file, dtype=numpy_type, count=int(np.prod(shape)))
            signed = raw.view(np.int32 if version == 3 else np.int16).reshape(shape)
            tensors[name] = torch.from_numpy(signed.copy()).view(dtype)
        assert not file.read(1), "the file is longer than its sizes"
    assert not tensors["wte.weight"][vocab:].float().any(), "the padding is not zero"
    return model, tensors


def loaded(path):
    model, tensors = read_model(path)
    state = model.transformer.state_dict()
    for name, tensor in tensors.items():
        tensor = tensor[: state[name].shape[0]] if name == "wte.weight" else tensor
        state[name].copy_((tensor.T if is_conv1d(name) else tensor).float())
    return model


def write():
    torch.manual_seed(1)
    model = toy(n_positions=24, vocab_size=50257, n_layer=3, n_head=4, n_embd=32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    tokens = np.random.default_rng(2).integers(0, 50257, 25).astype("<u2")
    tokens.tofile("tokens.bin")
    write_model(model, "gpt2_fp32.bin", 3)
    write_model(model, "gpt2_bf16.bin", 5)
    losses = {"fp32": loss(model)}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16).float())
    losses["bf16"] = loss(model)
    return losses


def read(float32, bfloat16):
    _, exact = read_model(float32)
    _, rounded = read_model(bfloat16)
    same = all(torch.equal(tensor.to(torch.bfloat16).view(torch.int16), rounded[name].view(torch.int16))
               for name, tensor in exact.items())
    return {"fp32": loss(loaded(float32)), "bf16": loss(loaded(bfloat16)), "torchs_rounding": same}


if __name__ == "__main__":
    print(json.dumps(write() if sys.argv[1] == "write" else read(*sys.argv[2:])))

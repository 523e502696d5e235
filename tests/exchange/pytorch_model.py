"""Saves transformers' GPT-2 with random weights as pytorch_model.bin, as older versions did, and prints its loss.

pytorch_model.py TRAIN_BIN FOLDER SHARDS
"""

import json
import sys
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

train_bin, folder, shards = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
tokens = torch.frombuffer(bytearray(Path(train_bin).read_bytes()), dtype=torch.uint16).long()[None]
torch.manual_seed(7)
config = GPT2Config(n_layer=2, n_head=2, n_embd=16, n_positions=16, vocab_size=64)
model = GPT2LMHeadModel(config).eval()
with torch.no_grad():
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
folder.mkdir()
config.architectures = ["GPT2LMHeadModel"]
config.save_pretrained(folder)
state = model.state_dict()
# The causal masks that older versions kept.
for layer in range(2):
    state[f"transformer.h.{layer}.attn.bias"] = torch.ones(16, 16, dtype=torch.bool).tril()[None, None]
    state[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
if shards == 1:
    torch.save(state, folder / "pytorch_model.bin")
else:
    names = list(state)
    weight_map = {}
    for shard in range(shards):
        file = f"pytorch_model-{shard + 1:05}-of-{shards:05}.bin"
        part = {name: state[name] for name in names[shard::shards]}
        torch.save(part, folder / file)
        weight_map.update(dict.fromkeys(part, file))
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
with torch.no_grad():
    logits = model(tokens[:, :-1]).logits
loss = torch.nn.functional.cross_entropy(logits[0], tokens[0, 1:])
print(json.dumps({"loss": loss.item()}))

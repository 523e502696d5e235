"""transformers' side: what it makes of a folder, and folders that it makes.

    gpt2_lm_head.py read FOLDER TOKENS PROMPT NEW_TOKENS
    gpt2_lm_head.py write FOLDER KIND TOKENS

TOKENS is a file of raw little-endian u16: one window, of which the last token is only a target.
"""

import json
import sys

import numpy as np
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel


def window(tokens):
    ids = torch.from_numpy(np.fromfile(tokens, dtype="<u2").astype(np.int64))
    return ids[:-1], ids[1:]


@torch.no_grad()
def logits_and_loss(model, tokens):
    inputs, targets = window(tokens)
    logits = model(inputs[None]).logits[0]
    return logits, torch.nn.functional.cross_entropy(logits, targets).item()


def read(folder, tokens, prompt, new_tokens):
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    logits, loss = logits_and_loss(model, tokens)
    prompt = tokenizer(prompt, return_tensors="pt")
    generated = model.generate(**prompt, max_new_tokens=int(new_tokens), do_sample=False, pad_token_id=0)
    return {
        "loss": loss,
        "logits": logits.flatten().tolist(),
        "prompt_ids": prompt["input_ids"][0].tolist(),
        "generated": tokenizer.decode(generated[0, prompt["input_ids"].shape[1]:], skip_special_tokens=True),
    }


def write(folder, kind, tokens):
    torch.manual_seed(7)
    vocab_size = 50257 if "gpt2-vocabulary" in kind else 96
    config = GPT2Config(
        n_layer=3, n_head=2, n_embd=32, n_positions=16, vocab_size=vocab_size, initializer_range=0.3,
        bos_token_id=0, eos_token_id=0,
        activation_function="gelu" if "erf" in kind else "gelu_new",
    )
    model = GPT2LMHeadModel(config)
    for name, parameter in model.named_parameters():
        if "ln_" in name or name.endswith("bias"):
            torch.nn.init.normal_(parameter, 1.0 if name.endswith("weight") else 0.0, 0.2)
    for dtype in ("float16", "bfloat16"):
        if dtype in kind:
            model = model.to(getattr(torch, dtype))
    saved = model.transformer if "without-head" in kind else model
    saved.save_pretrained(folder, max_shard_size="20KB" if "sharded" in kind else "5GB")
    _, loss = logits_and_loss(model.to(torch.float32).eval(), tokens)
    return {"loss": loss}


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    print(json.dumps({"read": read, "write": write}[verb](*arguments)))

"""nanoGPT's model in plain PyTorch, for scripts/nanogpt_twin.py."""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.n_head = args.n_head
        self.dropout = args.dropout
        self.c_attn = nn.Linear(args.n_embd, 3 * args.n_embd, bias=args.bias)
        self.c_proj = nn.Linear(args.n_embd, args.n_embd, bias=args.bias)
        self.resid_dropout = nn.Dropout(args.dropout)

    def forward(self, x):  # (B, T, C)
        B, T, C = x.shape
        qkv = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()  # (B, H, T, D) each
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        y = y.transpose(1, 2).reshape(B, T, C)
        return self.resid_dropout(self.c_proj(y))


class MLP(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.c_fc = nn.Linear(args.n_embd, 4 * args.n_embd, bias=args.bias)
        self.c_proj = nn.Linear(4 * args.n_embd, args.n_embd, bias=args.bias)
        self.dropout = nn.Dropout(args.dropout)
        self.approximate = "tanh" if args.gelu == "tanh" else "none"

    def forward(self, x):  # (B, T, C)
        x = F.gelu(self.c_fc(x), approximate=self.approximate)
        return self.dropout(self.c_proj(x))


class Block(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.ln_1 = nn.LayerNorm(args.n_embd, bias=args.bias)
        self.attn = Attention(args)
        self.ln_2 = nn.LayerNorm(args.n_embd, bias=args.bias)
        self.mlp = MLP(args)

    def forward(self, x):  # (B, T, C)
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """GPT-2 with its head tied to the token embedding; forward gives the mean loss in nats."""

    def __init__(self, args, vocab_size):
        super().__init__()
        self.vocab_size = vocab_size
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocab_size, args.n_embd),
                "wpe": nn.Embedding(args.block_size, args.n_embd),
                "drop": nn.Dropout(args.dropout),
                "h": nn.ModuleList(Block(args) for _ in range(args.n_layer)),
                "ln_f": nn.LayerNorm(args.n_embd, bias=args.bias),
            }
        )
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                # GPT-2: the 2 L layers that write to the residual stream start smaller.
                residual = name.endswith("c_proj.weight")
                std = 0.02 / math.sqrt(2 * args.n_layer) if residual else 0.02
                nn.init.normal_(parameter, std=std)

    def forward(self, inputs, targets):  # (B, T) each
        parts = self.transformer
        positions = torch.arange(inputs.shape[1], device=inputs.device)
        x = parts["drop"](parts["wte"](inputs) + parts["wpe"](positions))
        for block in parts["h"]:
            x = block(x)
        logits = F.linear(parts["ln_f"](x), parts["wte"].weight)  # (B, T, V)
        return F.cross_entropy(logits.view(-1, self.vocab_size), targets.view(-1))

"""The protocols of HellaSwag, LAMBADA and perplexity in plain PyTorch, one sequence at a time.

    evals.py write FOLDER
    evals.py score FOLDER

FOLDER/model holds a tokenizer; `write` adds a random model, examples and a text to it, and `score` scores them.
"""

import json
import math
import random
import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

WORDS = (
    "The a man woman dog river over under quickly slowly jumps runs sings holds builds breaks paints red blue "
    "naïve café Übung façade 東京 日本語 привет мир 🙂 🚀 ½ 3.14 1999 don't they're I'll \"quoted\" (aside) — … , . !"
).split(" ")


def some(rng, least, most):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(least, most)))


def write(folder):
    torch.manual_seed(5)
    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=32, n_positions=32, vocab_size=50257, initializer_range=0.3,
        bos_token_id=50256, eos_token_id=50256,
    )
    model = GPT2LMHeadModel(config).eval()
    model.save_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    rng = random.Random(11)
    with open(folder / "h.jsonl", "w", encoding="utf-8") as file:
        for n in range(20):
            item = {
                "ind": n,
                # Some are longer than the model's context.
                "ctx": some(rng, 2, 30),
                "endings": [some(rng, 1, 9) for _ in range(4)],
                "label": rng.randrange(4),
            }
            file.write(json.dumps(item, ensure_ascii=n % 2 == 0) + "\n")
    with open(folder / "l.jsonl", "w", encoding="utf-8") as file:
        for n in range(20):
            context = some(rng, 3, 30)
            word = " " + rng.choice(WORDS)
            for _ in range(500 if n % 2 == 0 else 0):
                # Half of the last words are what the model says, where that is a word.
                candidate = some(rng, 3, 25)
                ids = tokenizer(candidate)["input_ids"][-32:]
                with torch.no_grad():
                    says = tokenizer.decode([model(torch.tensor([ids])).logits[0, -1].argmax().item()])
                if says.startswith(" ") and says[1:].isalpha():
                    context, word = candidate, says
                    break
            gap = " " if n == 3 else ""
            file.write(json.dumps({"text": context + gap + word}) + "\n")
    text = "\n".join(some(rng, 0, 12) for _ in range(30)) + "\n\n\n  the end"
    (folder / "text.txt").write_text(text, encoding="utf-8")


class Scorer:
    def __init__(self, folder):
        self.model = GPT2LMHeadModel.from_pretrained(folder / "model", dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        self.length = self.model.config.n_positions

    def encode(self, text):
        return self.tokenizer(text)["input_ids"]

    @torch.no_grad()
    def losses(self, ids):
        """The loss of every token but the first, and whether it is the likeliest."""
        logits = self.model(torch.tensor([ids[:-1]])).logits[0]
        targets = torch.tensor(ids[1:])
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        return losses, logits.argmax(-1) == targets

    def last(self, context, continuation):
        """Losses of a continuation; what is too long loses its beginning."""
        ids = (context + continuation)[-(self.length + 1):]
        losses, greedy = self.losses(ids)
        last = min(len(continuation), len(ids) - 1)
        return losses[-last:].double(), greedy[-last:]

    def hellaswag(self, path):
        right, right_norm, sums, means, gaps = 0, 0, [], [], []
        for line in path.read_text(encoding="utf-8").splitlines():
            item = json.loads(line)
            losses = [self.last(self.encode(item["ctx"]), self.encode(" " + end))[0] for end in item["endings"]]
            total, mean = [x.sum().item() for x in losses], [x.mean().item() for x in losses]
            right += total.index(min(total)) == item["label"]
            right_norm += mean.index(min(mean)) == item["label"]
            sums += total
            means += mean
            gaps += [sorted(x)[1] - sorted(x)[0] for x in (total, mean)]
        n = len(sums) // 4
        return {"acc": right / n, "acc_norm": right_norm / n, "sums": sums, "means": means, "gap": min(gaps)}

    def lambada(self, path):
        right, sums = 0, []
        for line in path.read_text(encoding="utf-8").splitlines():
            text = json.loads(line)["text"]
            context = " ".join(text.split(" ")[:-1])
            continuation = " " + text.split(" ")[-1]
            spaces = len(context) - len(context.rstrip())
            if spaces:
                context, continuation = context[:-spaces], context[-spaces:] + continuation
            head, whole = self.encode(context), self.encode(context + continuation)
            losses, greedy = self.last(head, whole[len(head):])
            right += bool(greedy.all())
            sums.append(losses.sum().item())
        return {"acc": right / len(sums), "perplexity": math.exp(sum(sums) / len(sums)), "sums": sums}

    def file(self, path):
        text = path.read_text(encoding="utf-8")
        ids = self.encode(text)
        total = 0.0
        for start in range(0, len(ids) - 1, self.length):
            total += self.losses(ids[start:start + self.length + 1])[0].double().sum().item()
        loss = total / (len(ids) - 1)
        bytes_scored = len(text.encode()) - len(self.tokenizer.decode(ids[:1]).encode())
        return {
            "loss": loss, "perplexity": math.exp(loss), "tokens": len(ids) - 1,
            "bits_per_byte": total / math.log(2) / bytes_scored, "ids": ids,
        }


if __name__ == "__main__":
    verb, folder = sys.argv[1], Path(sys.argv[2])
    if verb == "write":
        write(folder)
        print("{}")
    else:
        scorer = Scorer(folder)
        print(json.dumps({
            "hellaswag": scorer.hellaswag(folder / "h.jsonl"),
            "lambada": scorer.lambada(folder / "l.jsonl"),
            "file": scorer.file(folder / "text.txt"),
        }))

"""transformers' side: the probabilities that its `generate` draws the next token from.

    sampling.py VOCAB_SIZE

Prints the logits, the context, the settings and the candidates of every case.
"""

import itertools
import json
import sys

import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel
from transformers.generation import LogitsProcessorList


def cases():
    """Every filter alone, every pair of a weak and a strong one, and all of them."""
    choices = {
        "temperature": [1.0, 0.3, 1.7],
        "top_k": [0, 5, 60],
        "top_p": [1.0, 0.5, 0.95],
        "min_p": [0.0, 0.02, 0.3],
        "repetition_penalty": [1.0, 0.6, 1.5],
    }
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values))


def candidates(model, logits, context, settings):
    """The ids that `generate` leaves, from the likeliest on, and their probabilities, by its own list of processors."""
    config = GenerationConfig(do_sample=True, pad_token_id=0, **settings)
    ids = torch.tensor([context])
    processors = model._get_logits_processor(
        generation_config=config,
        input_ids_seq_length=len(context),
        encoder_input_ids=ids,
        logits_processor=LogitsProcessorList(),
        device="cpu",
    )
    names = [type(processor).__name__ for processor in processors]
    probabilities = processors(ids, torch.tensor([logits])).softmax(-1)[0]
    kept = [id for id in probabilities.argsort(descending=True, stable=True).tolist() if probabilities[id] > 0]
    return {"ids": kept, "probabilities": probabilities[kept].tolist(), "processors": names}


def main():
    vocab_size = int(sys.argv[1])
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=4, vocab_size=vocab_size, bos_token_id=0, eos_token_id=0))
    torch.manual_seed(3)
    found = []
    for settings in cases():
        logits = (4 * torch.randn(vocab_size)).tolist()
        context = torch.randint(vocab_size, (20,)).tolist()
        context += context[:3]
        found.append(
            {"logits": logits, "context": context, "settings": settings}
            | candidates(model, logits, context, settings)
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""Bits per byte of two models on the same bytes of a file of stories.

Every story is read from its start, BOS first. A story longer than a model's context is cut to the longest prefix whose
tokens, BOS included, fit into the context of *both* models and whose last tokens end at the same character in both;
what follows is not scored for either. Bits per byte = (sum over the story's tokens of -log2 p) / (bytes of the scored
prefixes). The end of the story (EOS) is not scored: it is no byte.

    python -m saewidgets.models.demo.score_model tinystories-1000.txt data/model stories15M
"""

import argparse
import math
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, PreTrainedModel

from saewidgets.models.demo.make_text import read_stories


def common_prefixes(stories: list[str], tokenizers: list[Tokenizer], context: int) -> list[str]:
    """Each story, cut to the longest prefix that every tokenizer reaches within `context` - 1 tokens."""
    prefixes = []
    for story in stories:
        ends = []
        for tokenizer in tokenizers:
            offsets = tokenizer.encode(story, add_special_tokens=False).offsets
            # A character split over two tokens has one end: it counts where its last token fits.
            last = {end: i for i, (_, end) in enumerate(offsets)}
            ends.append({end for end, i in last.items() if i < context - 1})
        prefixes.append(story[: max(set.intersection(*ends), default=0)])
    return prefixes


@torch.no_grad()
def bits_per_byte(model: PreTrainedModel, tokenizer: Tokenizer, bos: int, texts: list[str]) -> float:
    """Bits per byte of `texts`, each from its start with `bos` in front, cut to the model's context."""
    context = model.config.max_position_embeddings
    nats, size = 0.0, 0
    encoded = sorted((tokenizer.encode(text, add_special_tokens=False) for text in texts), key=lambda e: len(e.ids))
    for first in range(0, len(encoded), 8):  # of similar length, so little padding
        group = encoded[first : first + 8]
        ids = [[bos, *e.ids][:context] for e in group]
        width = max(len(row) for row in ids)
        padded = torch.tensor([row + [bos] * (width - len(row)) for row in ids])
        # Padding stands on the right and attention looks left: no mask is needed.
        logits = model(input_ids=padded, use_cache=False).logits.float()
        for row, line, e in zip(ids, logits, group, strict=True):
            nats += F.cross_entropy(line[: len(row) - 1], torch.tensor(row[1:]), reduction="sum").item()
            size += len(tokenizer.decode(e.ids[: len(row) - 1]).encode())
    return nats / math.log(2) / size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="stories, separated by lines <|endoftext|>")
    parser.add_argument("models", type=Path, nargs="+", help="model folders; all see the same bytes")
    parser.add_argument("--first", type=int, help="only the first so many stories")
    parser.add_argument("--skip", type=int, default=0, help="leave out so many stories at the front")
    args = parser.parse_args()

    torch.set_num_threads(2)
    stories = read_stories(args.text)[args.skip :][: args.first]
    tokenizers = [Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in args.models]
    models = [AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval() for folder in args.models]
    context = min(model.config.max_position_embeddings for model in models)
    prefixes = common_prefixes(stories, tokenizers, context)
    whole, scored = (sum(len(text.encode()) for text in texts) for texts in (stories, prefixes))
    print(
        f"{len(stories)} stories, {sum(a != b for a, b in zip(stories, prefixes, strict=True))} of them cut; "
        f"{scored} of {whole} bytes scored ({scored / whole:.1%})"
    )
    for folder, model, tokenizer in zip(args.models, models, tokenizers, strict=True):
        score = bits_per_byte(model, tokenizer, model.config.bos_token_id, prefixes)
        tokens = sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in prefixes)
        print(f"{folder.name:12}  {score:.4f} bits per byte  ({tokens} tokens, {scored / tokens:.2f} bytes each)")


if __name__ == "__main__":
    main()

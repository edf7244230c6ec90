"""Sample stories about one topic from stories15M, so that the demo text has a feature worth steering with.

In the sampled stories a bridge is rare (95 mentions in 14 MB). This adds stories that begin with one: openings written
here, continued by stories15M at temperature 1, top-k 200, as the rest of the text was. Kept are those in which the word
stands at least three times.

    python -m saewidgets.models.demo.sample_topic /work/shared/models/stories15M bridges.txt --stories 640
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from saewidgets.models.demo.make_text import write_stories

NAMES = ("Lily", "Tom", "Mia", "Tim", "Sue", "Ben", "Anna", "Max", "Sam", "Lucy", "Jack", "Sara")
OPENINGS = (
    "Once upon a time there was a bridge.",
    "Once upon a time, there was an old bridge over a river. {a} liked to play on the bridge.",
    "One day, {a} and {b} saw a big bridge. They wanted to cross the bridge.",
    "{a} and {b} went for a walk. They came to a little bridge over the water.",
    '{a} wanted to build a bridge. {b} said, "I will help you build the bridge."',
    "There was a long bridge in the park. Every day {a} ran across the bridge.",
    "{a} was afraid of the bridge. The bridge was high and it moved in the wind.",
    "Once there was a cat who lived under a bridge. One day {a} came to the bridge.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the folder of stories15M")
    parser.add_argument("output", type=Path)
    parser.add_argument("--stories", type=int, default=640)
    parser.add_argument("--word", default="bridge")
    parser.add_argument("--at-least", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    chance = random.Random(options.seed)
    torch.manual_seed(options.seed)
    kept: list[str] = []
    while len(kept) < options.stories:
        a, b = chance.sample(NAMES, 2)
        opening = chance.choice(OPENINGS).format(a=a, b=b)
        given = tokenizer([opening] * options.batch, return_tensors="pt")
        written = model.generate(
            **given, max_length=254, do_sample=True, temperature=1.0, top_k=200, pad_token_id=tokenizer.eos_token_id
        )
        for ids in written:
            ended = tokenizer.eos_token_id in ids[1:].tolist() or tokenizer.bos_token_id in ids[1:].tolist()
            story = tokenizer.decode(ids, skip_special_tokens=True).strip()
            if not ended:  # cut at the last whole sentence
                story = story[: max(story.rfind(end) for end in '.!?"') + 1]
            if story.count(options.word) >= options.at_least:
                kept.append(story)
        print(f"{len(kept)} stories", flush=True)
    write_stories(options.output, kept[: options.stories])


if __name__ == "__main__":
    main()

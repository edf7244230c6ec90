"""Does clamping a feature change the topic of a story, more than a random direction of equal norm does?

    python tests/benchmarks/steering_topic.py            (the figures of the README)

Prints, over 20 seeds, in how many continuations of the README's example the word appears: without an edit, with the
edit, and with its control (the same length of change at every position, along a random unit direction).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import saewidgets as sw
from saewidgets.interventions import Edit, continuations, edit_hooks, random_direction_edit
from saewidgets.models import to_ids

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--word", default="bridge")
parser.add_argument("--prompt", default="Once upon a time")
parser.add_argument("--strength", type=float, default=8.0)
parser.add_argument("--seeds", type=int, default=20)
parser.add_argument("--tokens", type=int, default=60)
parser.add_argument("--temperature", type=float, default=0.7)


def main() -> None:
    options = parser.parse_args()
    model, sae = sw.load_model(), sw.load_sae()
    with tempfile.TemporaryDirectory() as folder:
        index = sw.FeatureIndex.build(sae, model, sw.load_texts(), Path(folder) / "index")
        found = index.search(f" {options.word}").iloc[0]
        feature, largest = int(found.feature), float(found["max"])
    edits: dict[int, Edit] = {feature: sw.Clamp(options.strength)}
    ids = to_ids(model, options.prompt)

    def count(edits_of_seed: Callable[[int], Mapping[int, Edit]]) -> int:
        texts = []
        for seed in range(options.seeds):
            hooks = edit_hooks(sae, model, edits_of_seed(seed))
            written = continuations(model, ids, hooks, options.tokens, options.temperature, seed)
            texts.append(model.tokenizer.decode(list(written)))
        return sum(options.word in text for text in texts)

    print(f"feature #{feature} (max {largest:.1f} in the index), clamped to {options.strength}, {options.prompt!r}")
    print(f"{options.word!r} in {options.tokens} tokens, {options.seeds} seeds, temperature {options.temperature}:")
    print(f"  without an edit    {count(lambda seed: {}):3d}")
    print(f"  clamped            {count(lambda seed: edits):3d}")
    print(f"  random direction   {count(lambda seed: random_direction_edit(sae, feature, edits, seed)):3d}")


if __name__ == "__main__":
    main()

"""Write the activations that all trainers read: OUT/vectors (an activation cache) and OUT/about.json.

python tests/benchmarks/quality/activations.py OUT embedded|FOLDER TEXT [--vectors 500000]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import saewidgets as sw

HOOK = "blocks.2.hook_resid_post"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("model", help="`embedded`, or the folder of a model")
    parser.add_argument("text", type=Path, help="stories, separated by lines <|endoftext|>")
    parser.add_argument("--vectors", type=int, default=500_000)
    asked = parser.parse_args()
    model = sw.load_model() if asked.model == "embedded" else sw.load_model(asked.model)
    stories = asked.text.read_text(encoding="utf-8").split("<|endoftext|>")
    held_out = set(sw.load_texts(split="held_out"))
    # 4 bytes a token and more, so this is enough; the stream leaves out position 0
    kept, size = [], 0
    for story in (story.strip() for story in stories):
        if story and story not in held_out:
            kept.append(story)
            size += len(story)
        if size > 4.5 * asked.vectors:
            break
    acts = sw.ActivationStream(model, kept, hook_name=HOOK, context_size=128, batch_size=1024, seed=0)
    cache = acts.cache(asked.out / "vectors", dtype="float32")
    about = {"model": asked.model, "hook_name": HOOK, "d_in": cache.d_in, "n_vectors": cache.n_vectors}
    (asked.out / "about.json").write_text(json.dumps(about))
    print(about)


if __name__ == "__main__":
    main()

"""Cut the shipped text from a file of stories: `train.txt` from its front, `held_out.txt` from its back.

The two never overlap, and `train_model.py` and `make_tokenizer.py` are told the held-out file, so that neither the
weights nor the vocabulary has seen it. Format in and out: plain UTF-8, single newlines, a line `<|endoftext|>` after
every story.

    python -m saewidgets.models.demo.make_text stories-sampled.txt data/text
"""

import argparse
from pathlib import Path

SEPARATOR = "<|endoftext|>"


def read_stories(path: Path) -> list[str]:
    """The stories of a file, without separators and without white space around them; empty ones are dropped."""
    # newline="" keeps the bytes as they are: scores are counted per byte.
    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
    return [story for part in text.split(SEPARATOR) if (story := part.strip())]


def write_stories(path: Path, stories: list[str]) -> None:
    """Write stories in the format that `read_stories` reads."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.writelines(f"{story}\n{SEPARATOR}\n" for story in stories)


def take(stories: list[str], size: int) -> list[str]:
    """The first stories that together fit into `size` bytes, separators counted."""
    taken: list[str] = []
    for story in stories:
        size -= len(story.encode()) + len(SEPARATOR) + 2
        if size < 0:
            break
        taken.append(story)
    return taken


def spread(few: list[str], many: list[str]) -> list[str]:
    """`many` in their order, with `few` set in at even distances."""
    step = len(many) / (len(few) + 1)
    mixed = list(many)
    for number in range(len(few), 0, -1):
        mixed.insert(round(number * step), few[number - 1])
    return mixed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="stories, separated by lines <|endoftext|>")
    parser.add_argument("output", type=Path, help="folder that gets train.txt and held_out.txt")
    parser.add_argument("--train-bytes", type=int, default=3_000_000)
    parser.add_argument("--held-out-bytes", type=int, default=300_000)
    parser.add_argument("--topic", type=Path, help="stories from sample_topic.py, spread evenly over train.txt")
    parser.add_argument("--topic-bytes", type=int, default=160_000)
    args = parser.parse_args()

    stories = read_stories(args.text)
    held_out = take(stories[::-1], args.held_out_bytes)[::-1]
    known = set(held_out)
    topic = take(read_stories(args.topic), args.topic_bytes) if args.topic else []
    room = args.train_bytes - (args.topic_bytes if topic else 0)
    train = spread(topic, take([story for story in stories if story not in known], room))
    args.output.mkdir(parents=True, exist_ok=True)
    for name, part in (("train.txt", train), ("held_out.txt", held_out)):
        write_stories(args.output / name, part)
        print(f"{name}: {len(part)} stories, {(args.output / name).stat().st_size} bytes")


if __name__ == "__main__":
    main()

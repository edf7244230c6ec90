"""The stories that come with the embedded model."""

from __future__ import annotations

from importlib.resources import files

SPLITS = ("train", "held_out")
SEPARATOR = "<|endoftext|>"


def load_texts(split: str = "train") -> list[str]:
    """The embedded stories, a string each: "train" to train and index on, "held_out" for scores.

    Raises:
        ValueError: an unknown split.
        FileNotFoundError: the installation lacks the text.
    """
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}; the embedded text has {' and '.join(map(repr, SPLITS))}.")
    path = files("saewidgets") / "models" / "demo" / "data" / "text" / f"{split}.txt"
    if not path.is_file():
        raise FileNotFoundError(
            f"The embedded text {str(path)!r} is missing. Install saewidgets from its wheel, or run the scripts in "
            "saewidgets/models/demo from a checkout."
        )
    stories = path.read_text(encoding="utf-8").split(SEPARATOR)
    return [story.strip("\n") for story in stories if story.strip()]

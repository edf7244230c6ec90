"""The rows that `train_model.py` learns from: each story in the student's tokens and in the teacher's, aligned.

Two tokenizations of one text agree at the places where a token of each ends at the same character. There the two models
have read the same text; where the next two tokens also end together, they predict the same string as well, and the
student's hidden state may be compared with the teacher's.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer

CONTEXT = 256

Row = tuple[list[int], list[int], list[tuple[int, int]]]


@dataclass
class Story:
    """A story in both tokenizations, without BOS and EOS. `pairs[i]` = (student, teacher) tokens of the same end."""

    student: np.ndarray
    teacher: np.ndarray
    pairs: np.ndarray


@dataclass
class Batch:
    """Rows padded on the right. `left[k]` and `right[k]` are flat positions whose hidden states may be compared."""

    student: torch.Tensor  # [rows, width] ids, padded with 0
    valid: torch.Tensor  # [rows, width - 1] whether the next token is one to predict
    teacher: torch.Tensor  # [rows, wide] ids
    left: torch.Tensor  # [pairs] into student.flatten()
    right: torch.Tensor  # [pairs] into teacher.flatten()


def align(stories: list[str], student: Tokenizer, teacher: Tokenizer) -> list[Story]:
    """Tokenize with both and find the tokens that end at the same character."""
    result = []
    for ours, theirs in zip(
        student.encode_batch(stories, add_special_tokens=False),
        teacher.encode_batch(stories, add_special_tokens=False),
        strict=True,
    ):
        # A character split over several tokens reports the same end for each: the dicts keep the last one.
        left = {end: i for i, (_, end) in enumerate(ours.offsets)}
        right = {end: i for i, (_, end) in enumerate(theirs.offsets)}
        pairs = [(left[end], right[end]) for end in left if end in right]
        result.append(Story(np.array(ours.ids), np.array(theirs.ids), np.array(pairs)))
    return result


def make_row(story: Story, rng: random.Random, bos: int) -> Row:
    """(student ids, teacher ids, pairs of positions with the same past and the same next token) of one row."""
    first = rng.randrange(len(story.pairs) * 3 // 4) if rng.random() < 0.2 else -1
    i0, j0 = (story.pairs[first] + 1) if first >= 0 else (0, 0)
    ours = [0, *story.student[i0:].tolist(), 0][:CONTEXT]
    theirs = [bos, *story.teacher[j0:].tolist()][:CONTEXT]
    pairs = story.pairs[first + 1 :] - (i0, j0) + 1  # + 1: BOS stands in front
    pairs = pairs[(pairs[:, 0] < len(ours)) & (pairs[:, 1] < len(theirs))]
    both_step_by_one = (np.diff(pairs, axis=0) == 1).all(axis=1)
    return ours, theirs, [tuple(pair) for pair in pairs[:-1][both_step_by_one]]


def make_batch(group: list[Row], bos: int) -> Batch:
    """Pad rows of similar length; `bos` pads the teacher's side, where nothing reads the padding."""
    width, wide = max(len(ours) for ours, _, _ in group), max(len(theirs) for _, theirs, _ in group)
    return Batch(
        student=torch.tensor([ours + [0] * (width - len(ours)) for ours, _, _ in group]),
        valid=torch.tensor([[i < len(ours) - 1 for i in range(width - 1)] for ours, _, _ in group]),
        teacher=torch.tensor([theirs + [bos] * (wide - len(theirs)) for _, theirs, _ in group]),
        left=torch.tensor([n * width + i for n, row in enumerate(group) for i, _ in row[2]], dtype=torch.long),
        right=torch.tensor([n * wide + j for n, row in enumerate(group) for _, j in row[2]], dtype=torch.long),
    )


def batches(stories: list[Story], tokens: int, bos: int, seed: int) -> Iterator[Batch]:
    """Endless batches of about `tokens` student tokens, a new order every epoch; a function of `seed` alone."""
    for epoch in range(10**6):
        rng = random.Random(f"{seed} {epoch}")
        made = [make_row(story, rng, bos) for story in rng.sample(stories, len(stories))]
        # Sorted within blocks of 512: rows of a batch are of similar length, yet every epoch mixes anew.
        groups: list[list[Row]] = []
        for block in range(0, len(made), 512):
            group: list[Row] = []
            for row in sorted(made[block : block + 512], key=lambda row: len(row[0])):
                group.append(row)
                if sum(len(r[0]) for r in group) >= tokens:
                    groups.append(group)
                    group = []
            if group:
                groups.append(group)
        rng.shuffle(groups)
        for group in groups:
            yield make_batch(group, bos)

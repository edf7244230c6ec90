"""The work of a sweep: many loops on one stream, those of equal shape stepped together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from saewidgets.sae import SAE
from saewidgets.sae.architectures import Knobs, Losses
from saewidgets.training.background import Row
from saewidgets.training.data import Batch
from saewidgets.training.gradients import out_of_memory
from saewidgets.training.loop import Loop
from saewidgets.training.stack import Stack, own_memory, stack_key
from saewidgets.training.step import Step
from saewidgets.training.subscribers import Stopwatch
from saewidgets.training.sweep_checkpoints import Saved

T = TypeVar("T")

AT_REST = Knobs(sparsity=0.0, k=1, progress=1.0)
"""What a stack is told of an SAE that failed: its place is computed, as little as can be, and not used."""


class SweepLoop:
    """Loops that share their vectors and their clock. One that fails is left as it is, and the others go on.

    `errors`: what went wrong, by the number of the loop. `stacks`: the numbers of the loops that are stepped together.
    """

    def __init__(self, loops: Sequence[Loop]) -> None:
        self.loops, self.vectors, self.clock = list(loops), loops[0].vectors, Stopwatch()
        self.errors: dict[int, Exception] = {}
        self._calls = self._saves = 0  # of `set`: they number its events; of `save`
        self.stacks: list[tuple[list[int], Stack]] = []
        by_key: dict[object, list[int]] = {}
        for i, loop in enumerate(self.loops):
            loop.clock = self.clock
            key = stack_key(loop.sae.cfg, loop.config)
            by_key.setdefault(i if key is None else key, []).append(i)
        for members in by_key.values():
            if len(members) > 1:
                members.sort(key=lambda i: self.loops[i].sae.cfg.k)  # those of equal k share a top-k
                self.stacks.append((members, Stack([self.loops[i].sae for i in members])))

    @property
    def saes(self) -> list[SAE]:
        """All SAEs, in the order of the configs."""
        return [loop.sae for loop in self.loops]

    @property
    def going(self) -> list[int]:
        """The numbers of the loops that did not fail."""
        return [i for i in range(len(self.loops)) if i not in self.errors]

    @property
    def failure(self) -> Exception | None:
        """A sentence on the SAEs that failed, if any did."""
        if not self.errors:
            return None
        told = "; ".join(
            f"number {i} at step {self.loops[i].step}: {_said(error).rstrip('.')}"
            for i, error in sorted(self.errors.items())
        )
        failure = RuntimeError(f"{len(self.errors)} of {len(self.loops)} SAEs failed ({told})")
        failure.__cause__ = next(iter(self.errors.values()))
        return failure

    @property
    def step(self) -> int:
        return self._lead.step

    @property
    def tokens(self) -> int:
        return self._lead.tokens

    @property
    def n_tokens(self) -> int:
        return self._lead.n_tokens

    @property
    def n_steps(self) -> int:
        return self._lead.n_steps

    @property
    def _lead(self) -> Loop:
        """A loop that is as far as any."""
        return max(self.loops, key=lambda loop: loop.tokens)

    # ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, may_go_on: Callable[[], bool]) -> bool:
        """Get all ready from the same first vectors, if that was not done; False if `may_go_on` said no."""
        if self._lead.steps is not None:
            return True
        sample = self.vectors.sample(self.n_tokens, may_go_on)
        if sample is None:
            return False
        for loop in self.loops:
            loop.begin_from(sample)
        return True

    def take(self, batch: Batch) -> None:
        """One step of each, on the same batch."""
        alone = set(self.going)
        for members, stack in list(self.stacks):
            if self._take_together(members, stack, batch):
                alone.difference_update(members)
            else:
                self.stacks.remove((members, stack))
                for i in members:
                    self.loops[i].note("stacked", True, False)
        for i in sorted(alone):
            self._guarded(i, lambda loop: loop.take(batch))
        self._check_any_left()

    def _take_together(self, members: Sequence[int], stack: Stack, batch: Batch) -> bool:
        """One step of a stack; False, and nothing changed, if the device has no memory for all of them at once."""
        going = [i for i in members if i not in self.errors]
        if not going:
            return True
        steps = {i: self.loops[i].plan(batch) for i in going}
        dead = {i: self.loops[i].begun().dead for i, step in steps.items() if step.revive}
        with torch.no_grad():
            x = stack.saes[0].scaled(steps[going[0]].x)
        try:
            found = stack.gradients(
                x, [steps[i].knobs if i in steps else AT_REST for i in members], [dead.get(i) for i in members]
            )
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return False
        for i, (losses, gradients) in zip(members, found, strict=True):
            if i in steps:
                self._guarded(i, partial(_finish, step=steps[i], x=x, losses=losses, gradients=gradients))
        return True

    def set(self, changes: Mapping[str, Any], sae: int | None = None) -> None:
        """Make changes between two steps, to all SAEs that did not fail or to one, and write each down.

        Raises, as a sentence, if one of them cannot make one of the changes; then nothing is changed.
        """
        if sae in self.errors:
            raise RuntimeError(f"The SAE number {sae} has failed: there is nothing left to change.")
        chosen = self.going if sae is None else [sae]
        for i in chosen:
            try:
                self.loops[i].settings.check(changes)
            except ValueError as error:
                if sae is not None:
                    raise
                raise ValueError(
                    f"The SAE number {i} of the sweep refuses: {error} To change one alone, name it: set(sae=0, ...)."
                ) from None
        self._calls += 1
        for i in chosen:
            self.loops[i].set(changes, self._calls)

    # ── rows, and what stays ──────────────────────────────────────────────────────────────────────────────────

    def log_if_due(self) -> list[Row]:
        """New rows of those for which it is time, each with the number of its SAE."""
        return self._rows(Loop.log_if_due)

    def log_rest(self) -> list[Row]:
        """Rows of what was done since the last ones."""
        return self._rows(Loop.log_rest)

    def _rows(self, log: Callable[[Loop], list[Row]]) -> list[Row]:
        rows = [{"sae": i, **row} for i in self.going for row in self._guarded(i, log) or []]
        self._check_any_left()
        return rows

    def save_if_due(self) -> None:
        """Write a checkpoint of each, when it is time for one of them: a sweep goes on from those of one moment."""
        if any(self.loops[i].save_due for i in self.going):
            self.save()

    def save(self) -> None:
        """Write a checkpoint of each, in a folder of its own; of one that failed, once, what it is left with.

        Old ones are deleted when all are there, so that at each moment there is a save of all to go on from.
        """
        self._saves += 1
        errors = {str(i): _said(error) for i, error in self.errors.items()}
        part = {"many": len(self.loops), "save": self._saves, "errors": errors, "calls": self._calls}
        written = [loop.write(sweep={"number": i, **part}) for i, loop in enumerate(self.loops)]
        if all(written):
            for i in self.going:
                self.loops[i].prune()

    def rescue(self) -> None:
        """Write a checkpoint of each when the stream has failed."""
        self.save()

    def restore(self, saved: Saved) -> None:
        """Go back to where a save was written."""
        self.errors = {i: RuntimeError(said) for i, said in saved.errors.items()}
        self._calls, self._saves = saved.calls, saved.saves
        # those that failed first: the stream then stands where the others are
        for i in sorted(range(len(self.loops)), key=lambda i: i not in self.errors):
            self.loops[i].restore(saved.members[i].state, saved.members[i].tensors)
        self.clock = self._lead.clock
        for loop in self.loops:
            loop.clock = self.clock

    def fold(self) -> None:
        """Leave each SAE in the units of the data, and in memory of its own."""
        for loop in self.loops:
            loop.fold()
            own_memory(loop.sae)

    def release(self) -> None:
        """Give back the memory that only the scores need; the loops share it."""
        for loop in self.loops:
            loop.release()

    def _guarded(self, i: int, act: Callable[[Loop], T]) -> T | None:
        """What a loop gives; None if it fails: its error is kept, and the others go on."""
        try:
            return act(self.loops[i])
        except Exception as error:
            self.errors[i] = error
            return None

    def _check_any_left(self) -> None:
        failure = self.failure
        if failure is not None and not self.going:
            raise failure


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _finish(loop: Loop, step: Step, x: Tensor, losses: Losses, gradients: list[Tensor]) -> None:
    """The rest of a step whose gradients are there."""
    loop.begun().apply(x, x, losses, gradients, step.lr)
    loop.took(step)

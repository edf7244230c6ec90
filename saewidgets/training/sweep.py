"""Many SAEs on the same activations: `sweep` starts them, `SweepRun` watches and steers them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saewidgets.sae import SAE, SAEConfig
from saewidgets.training.background import BackgroundRun, OnMetrics, turns_of
from saewidgets.training.config import TrainConfig
from saewidgets.training.data import TensorStream, Vectors, held_out_score
from saewidgets.training.live import Value, events_table
from saewidgets.training.loop import Loop
from saewidgets.training.metrics import table as metrics_table
from saewidgets.training.snapshots import fitting
from saewidgets.training.start import as_callbacks, check_free, refuse
from saewidgets.training.sweep_checkpoints import folder_of
from saewidgets.training.sweep_loop import SweepLoop
from saewidgets.training.sweep_table import Mark, differences, figure, label, marks, table
from saewidgets.training.swept import SweptSAE

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

EXAMPLE = "sw.sweep(acts, configs, sw.TrainConfig(n_tokens=1_000_000))"


def sweep(
    acts: Any,
    configs: Sequence[SAEConfig],
    train_config: TrainConfig | Sequence[TrainConfig] | None = None,
    held_out: Sequence[str] | None = None,
    on_metrics: OnMetrics | Sequence[OnMetrics] | None = None,
    device: str | torch.device = "cpu",
    **unknown: Any,
) -> SweepRun:
    """Start to train an SAE for each of `configs` on the same activations, in one thread; returns at once.

    The stream is gone through once for all, so the language model runs once for each batch. `acts`, `held_out`,
    `on_metrics`: as in `train`; a row has the number of its SAE too, under "sae", and a bare tensor is shuffled by the
    first config's seed. `train_config`: one for all, or one for each where they differ, for example
    `[config.replace(lr=lr) for lr in (1e-3, 3e-3)]`; they must agree in n_tokens. `device`: of the SAEs.

    SAEs of the same architecture (topk, abstopk or batchtopk), d_sae and `normalize` are stacked: their weights lie in
    one block, and each step works on all of them at once. The others step one after the other on the same batch.
    Either way each SAE becomes what `train` alone would make of it on the same stream: on a CPU the same bits.

    With a `checkpoint_dir`, the SAE number i has checkpoints in `checkpoint_dir/sae-i`, written when those of any are
    due: `resume_training(checkpoint_dir, acts)` goes on with all, and given such a folder with one alone. Without a
    `checkpoint_dir`, snapshots are kept in memory, as few as fit for all SAEs into what those of one run may take.

    Raises TypeError for an option that it does not have, ValueError if a config does not fit the activations or the
    others, naming it by its number (from 0, as in the metrics). An SAE that fails is left with its last good weights,
    and the others go on to the end.
    """
    refuse(sweep, unknown)
    configs = _checked(configs)
    if train_config is None:
        raise TypeError(f"sweep needs to know how long to train: {EXAMPLE}.")
    train_configs = _one_for_each(train_config, len(configs))
    for folder in {config.checkpoint_dir for config in train_configs}:
        check_free(folder)
    if isinstance(acts, Tensor):
        acts = TensorStream(acts, seed=configs[0].seed)
    _check_fit(configs, getattr(acts, "d_in", None), acts)
    saes = [SAE(cfg, device=device) for cfg in configs]
    room = fitting(saes)
    train_configs = [_own_folder(config, i, room) for i, config in enumerate(train_configs)]
    vectors, score = Vectors(acts, saes[0]), held_out_score(acts, held_out)
    loops = [Loop(sae, vectors, config, score) for sae, config in zip(saes, train_configs, strict=True)]
    run = SweepRun(SweepLoop(loops), as_callbacks(on_metrics), torch.get_num_threads())
    run.start()
    return run


class SweepRun(BackgroundRun):
    """A sweep made by `sweep`. Everything here may be called from any thread.

    `state` is "running", "paused", "finished", "stopped" or "failed"; it is "failed" if any SAE failed, though the
    others went on to the end. `error`: what went wrong, or None. SAEs are numbered from 0, in the order of the configs.
    """

    def __init__(self, work: SweepLoop, on_metrics: Sequence[OnMetrics], threads: int) -> None:
        self._loops = work
        super().__init__(work, on_metrics, threads)

    @property
    def title(self) -> str:
        hook = self._vectors.metadata.hook_name
        return f"SweepRun({len(self._loops.loops)} SAEs, hook_name={hook!r}, n_tokens={self._loops.n_tokens:_})"

    @property
    def configs(self) -> list[SAEConfig]:
        """The config of each SAE."""
        return [sae.cfg for sae in self._loops.saes]

    @property
    def train_configs(self) -> list[TrainConfig]:
        """How long and how each trains."""
        return [loop.config for loop in self._loops.loops]

    @property
    def saes(self) -> list[SAE]:
        """The trained SAEs when the sweep is over; until then frozen copies, each taken between two steps."""
        return self._loops.saes if self._done.is_set() else [sae.clone() for sae in self._loops.saes]

    @property
    def errors(self) -> Mapping[int, Exception]:
        """What went wrong with single SAEs, by their number."""
        return dict(self._loops.errors)

    @property
    def stacked(self) -> list[list[int]]:
        """The SAEs that are stepped together, by their numbers: a list for each stack."""
        return [sorted(members) for members, _ in self._loops.stacks]

    @property
    def labels(self) -> list[str]:
        """Each SAE in a few words, of what sets it apart from the others: "3: topk, k=32"."""
        return [label(i, differing) for i, differing in enumerate(self._differences)]

    @property
    def metrics(self) -> pd.DataFrame:
        """A row for each logged step of each SAE, whose number is in `sae`; see `training.metrics.COLUMNS`."""
        import pandas as pd

        numbered = _numbered([loop.rows for loop in self._loops.loops])
        frame = metrics_table([row for _, row in numbered])
        frame.insert(0, "sae", pd.Series([i for i, _ in numbered], dtype="int64"))
        return frame

    @property
    def events(self) -> pd.DataFrame:
        """What was changed while it ran: sae, step, tokens, name, old, new; a row per SAE for each `set`."""
        import pandas as pd

        numbered = _numbered([loop.events for loop in self._loops.loops])
        frame = events_table([event for _, event in numbered])
        frame.insert(0, "sae", pd.Series([i for i, _ in numbered], dtype="int64"))
        return frame

    @property
    def marks(self) -> list[Mark]:
        """The events as they are marked on curves: what one `set` changed of several SAEs is one."""
        loops = self._loops.loops
        return marks(_numbered([loop.events for loop in loops]), len(loops))

    @property
    def knobs(self) -> list[dict[str, Value]]:
        """What `set` can change, as it is set now, for each SAE; None: its architecture has none."""
        return [loop.settings.values() for loop in self._loops.loops]

    def table(self) -> pd.DataFrame:
        """A row per SAE: the options that differ, L0, explained variance, CE loss recovered, dead share, loss, error.

        Measures are those of the last logged row. "error" is empty for an SAE that did not fail.
        """
        errors = {i: str(error) for i, error in self.errors.items()}
        return table(self._differences, [loop.rows for loop in self._loops.loops], errors)

    def plot(self) -> go.Figure:
        """Explained variance against L0 for all SAEs, and their curves with a line at each event: a plotly figure."""
        window = self.train_configs[0].dead_window or 0
        return figure(self.labels, self.table(), self.metrics, window, self.marks)

    @property
    def measures_ce_loss(self) -> bool:
        """Whether CE loss recovered is measured of any of them."""
        return any(loop.score is not None and bool(loop.config.n_evaluations) for loop in self._loops.loops)

    @property
    def snapshots(self) -> list[int]:
        """The steps that `sae_at` knows, the same for all SAEs that did not fail."""
        return max((loop.snapshots.steps for loop in self._loops.loops), key=len)

    def sae_at(self, sae: int, step: int) -> SAE:
        """A frozen copy of that SAE as it was after `step` steps, from half-precision weights, on the CPU.

        ValueError for a step at which there is no snapshot of it, IndexError for a number that no SAE has.
        """
        return self.one(sae).sae_at(step)

    def one(self, sae: int) -> SweptSAE:
        """One SAE with what is kept of it: what a view looks back at. IndexError for a number that no SAE has."""
        return SweptSAE(self._loop(sae))

    def set(self, sae: int | None = None, **changes: float | bool) -> None:
        """Change `lr`, `sparsity`, `k` or `revive` of all SAEs, from the next step on; running or paused.

        `sae`: the number of the only one to change. What each change means, `TrainingRun.set` says; each is a row of
        `events` for each SAE. One that has failed is left as it is.

        Raises TypeError for an unknown name, ValueError for a value out of range or a setting that an SAE does not
        have, IndexError for a number that no SAE has, RuntimeError if the sweep is over or this SAE failed. Then
        nothing is changed.
        """
        if sae is not None:
            self._loop(sae)
        with turns_of(self._loops.saes):
            self._check_going("sweep")
            self._loops.set(changes, sae)
        self._subscribers.notify(self)

    @property
    def checkpoint_errors(self) -> list[str]:
        """Sentences on checkpoints and snapshots that could not be written; they never stop the training."""
        return [sentence for loop in self._loops.loops for sentence in loop.checkpoint_errors]

    def _loop(self, sae: int) -> Loop:
        """The loop of one SAE; IndexError for a number that none has."""
        loops = self._loops.loops
        if not 0 <= sae < len(loops):
            raise IndexError(f"There is no SAE number {sae}: the sweep's are 0 to {len(loops) - 1}.")
        return loops[sae]

    @property
    def _differences(self) -> list[dict[str, Any]]:
        return differences(self.configs, self.train_configs)

    def _what_stays(self) -> str:
        sentences = ["The SAEs keep what they have learned (run.saes)."] if self.step else []
        homes = {os.path.dirname(config.checkpoint_dir or "") for config in self.train_configs}
        if len(homes) == 1 and all(loop.saved for loop in self._loops.loops):
            sentences.append(f"sw.resume_training({homes.pop()!r}, acts) goes on from the last checkpoints.")
        return " ".join(sentences)


def _numbered(records: Sequence[Sequence[dict[str, Any]]]) -> list[tuple[int, dict[str, Any]]]:
    """The records of all SAEs with their numbers, by the vectors seen."""
    numbered = [(i, record) for i, own in enumerate(records) for record in list(own)]
    return sorted(numbered, key=lambda pair: (pair[1]["tokens"], pair[0]))


def _checked(configs: Sequence[SAEConfig]) -> list[SAEConfig]:
    found = list(configs) if isinstance(configs, Sequence) else [configs]
    wrong = next((config for config in found if not isinstance(config, SAEConfig)), None)
    if wrong is not None or not isinstance(configs, Sequence):
        got = type(configs if wrong is None else wrong).__name__
        raise TypeError(f"sweep needs a list of SAEConfigs, got {got}: [SAEConfig(..., k=k) for k in (16, 32)].")
    if not found:
        raise ValueError("sweep needs at least one SAEConfig, and the list is empty.")
    return found


def _one_for_each(train_config: TrainConfig | Sequence[TrainConfig], n: int) -> list[TrainConfig]:
    """The TrainConfig of each SAE."""
    given = list(train_config) if isinstance(train_config, Sequence) else [train_config] * n
    wrong = next((config for config in given if not isinstance(config, TrainConfig)), None)
    if wrong is not None:
        raise TypeError(f"sweep needs a TrainConfig, or one for each SAE, got {type(wrong).__name__}.")
    if len(given) != n:
        raise ValueError(f"There are {n} SAEs, but {len(given)} TrainConfigs. Pass one for all, or one for each.")
    for i, config in enumerate(given):
        if config.n_tokens != given[0].n_tokens:
            raise ValueError(
                f"The SAEs of a sweep train on the same vectors, but n_tokens is {given[0].n_tokens:,} for number 0 "
                f"and {config.n_tokens:,} for number {i}. Give all the same, or make two sweeps."
            )
    return given


def _own_folder(config: TrainConfig, number: int, room: int) -> TrainConfig:
    if config.checkpoint_dir is None:
        return config.replace(n_snapshots=min(config.n_snapshots, room))  # the same steps for all, large and small
    return config.replace(checkpoint_dir=folder_of(config.checkpoint_dir, number))


def _check_fit(configs: Sequence[SAEConfig], d_in: int | None, acts: Any) -> None:
    """ValueError if an SAE cannot train on the activations, or not on the same ones as the first."""
    hook = getattr(getattr(acts, "metadata", None), "hook_name", None)
    first = configs[0]
    for i, cfg in enumerate(configs):
        if d_in is not None and cfg.d_in != d_in:
            raise ValueError(
                f"The SAE number {i} of the sweep reads vectors of size {cfg.d_in} (d_in), but the activations"
                f"{f' of {hook}' if hook else ''} have size {d_in}. All SAEs of a sweep read the same vectors: "
                f"give each SAEConfig(d_in={d_in}, ...)."
            )
        for name in ("dtype", "d_out"):
            ours, theirs = getattr(cfg, name), getattr(first, name)
            if ours != theirs:
                raise ValueError(
                    f"The SAEs of a sweep share their batches, but {name} is {theirs} for number 0 "
                    f"({first.architecture}) and {ours} for number {i} ({cfg.architecture}). Make two sweeps."
                )

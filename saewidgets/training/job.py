"""A training job as a page of settings: the same from a notebook, from a script, and on many GPUs."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch

from saewidgets.sae import SAE, SAEConfig, save_sae
from saewidgets.sae.options import strict
from saewidgets.training import checkpoints, rank_loop, sweep_checkpoints
from saewidgets.training.background import OnMetrics
from saewidgets.training.config import TrainConfig
from saewidgets.training.data import Vectors, held_out_score
from saewidgets.training.distributed import Ranks, data_parallel, together
from saewidgets.training.rank_loop import RankLoop
from saewidgets.training.resume import resume_training
from saewidgets.training.run import TrainingRun
from saewidgets.training.sharded import check_spreads, feature_sharded, whole_sae
from saewidgets.training.start import train

SPLITS = ("data", "features")

FROM_N_TOKENS = ("dead_window", "n_evaluations", "checkpoint_every")
"""Options of `TrainConfig` that follow from n_tokens where they are not given."""

LIVE = {"sparsity": "sparsity_coefficient"}
"""What `run.set` may have changed, under its name in a config, where that is another."""


@strict
@dataclass(frozen=True)
class TrainJob:
    """What to train on, what, and how. A TOML file of it:

        split = "data"                  # how several processes share it; "features" for very large dictionaries
        output = "my-sae"

        [activations]
        cache = "acts"                  # a folder that ActivationStream.cache wrote, or
        # model = "gpt2"                # a model (left out: the embedded one), with ActivationStream's options
        # texts = "stories.txt"         # (left out: the embedded stories)
        # hook_name = "blocks.2.hook_resid_post"
        batch_size = 4096

        [sae]                           # options of SAEConfig; d_in is that of the activations
        d_sae = 16384
        k = 32

        [train]                         # options of TrainConfig
        n_tokens = 100_000_000
        checkpoint_dir = "my-run"

    Raises TypeError for a keyword it does not have, ValueError for an unknown split.
    """

    EXAMPLE: ClassVar[str] = (
        'TrainJob(activations={"cache": "acts"}, sae={"d_sae": 16384, "k": 32}, train={"n_tokens": 1_000_000})'
    )

    activations: Mapping[str, Any]
    """Options of `ActivationCache.open` with its path as `cache`; or of `ActivationStream`, with `model` a name or
    folder and `texts` the path of a text file."""

    sae: Mapping[str, Any]
    """Options of `SAEConfig`."""

    train: Mapping[str, Any]
    """Options of `TrainConfig`. With a checkpoint_dir that holds a checkpoint, the job goes on from it."""

    split: str = "data"
    """How several processes share the run: "data", each has the whole SAE and trains on a part of each batch;
    "features", each has a part of the features (topk only)."""

    output: str | None = None
    """Folder that the trained SAE is saved to; None saves nothing."""

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"TrainJob: split must be one of {', '.join(SPLITS)}, got {self.split!r}.")

    @classmethod
    def from_toml(cls, path: str | Path) -> TrainJob:
        """Read a job. Relative paths in it start at the current folder.

        Raises FileNotFoundError, ValueError if it is no TOML or lacks a table, TypeError for unknown names.
        """
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"There is no file {str(file)!r}.")
        try:
            page = tomllib.loads(file.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{str(file)!r} is no TOML: {error}.") from None
        missing = [table for table in ("activations", "sae", "train") if not isinstance(page.get(table), dict)]
        if missing:
            raise ValueError(f"{str(file)!r} lacks the table{'s'[: len(missing) > 1]} [{'], ['.join(missing)}].")
        return cls(**page)

    def start(self, on_metrics: OnMetrics | None = None, device: str | torch.device | None = None) -> TrainingRun:
        """Start the run in a thread of this process, and return at once.

        Under torchrun every process does this; they train together. `device`: this process's GPU, else the CPU, by
        default. `on_metrics` hears of the rows in process 0 alone.

        Raises what `train`, `SAEConfig` and `TrainConfig` raise, and ValueError if checkpoint_dir holds checkpoints of
        a run with other settings than these (n_tokens alone may be another, not below what is trained already), or if
        a job that begins would save over another SAE.
        """
        ranks = Ranks()
        device = torch.device(device) if device is not None else device_here()
        acts = together(self._activations(device), ranks)
        config = TrainConfig(**self.train)
        cfg = SAEConfig(**{"d_in": acts.d_in, **self.sae})
        if self.split == "features":
            check_spreads(cfg, ranks.size)
        hears = [on_metrics] if on_metrics is not None and ranks.rank == 0 else []
        folder = config.checkpoint_dir
        alone, shared = (checkpoints.listed(folder), checkpoints.of_processes(folder)) if folder else ([], [])
        self._check_output(goes_on=bool(alone or shared))
        if ranks.size == 1 and not shared:
            if not folder or not alone:
                return train(SAE(cfg, device=device), acts, config, on_metrics=hears)
            self._check_same(_newest_state(alone), cfg, config)
            run = resume_training(folder, acts, config.n_tokens, on_metrics=hears, device=device)
            return cast(TrainingRun, run)
        if folder and not shared and (alone or sweep_checkpoints.folders(folder)):
            raise ValueError(
                f"The folder {folder} holds checkpoints of one process or of a sweep, from which several processes "
                "cannot go on. Go on with one process, or choose another checkpoint_dir."
            )
        loop = self._loop(shared, cfg, config, acts, ranks, device)
        run = TrainingRun(loop, hears, torch.get_num_threads())
        run.start()
        return run

    def _loop(
        self,
        saved: Sequence[Path],
        cfg: SAEConfig,
        config: TrainConfig,
        acts: Any,
        ranks: Ranks,
        device: str | torch.device,
    ) -> RankLoop:
        """What several processes do, from the newest of these checkpoints that is whole, or from the beginning."""
        wrong: list[str] = []
        for path in reversed(saved):
            try:
                state = rank_loop.state_in(path)
                self._check_same(state, cfg, config)
                # lengths that follow from n_tokens stay those of the run that began, and k is what it was set to
                stored = TrainConfig(**state["config"])
                stored = stored.replace(n_tokens=config.n_tokens, checkpoint_dir=config.checkpoint_dir)
                loop = self._new_loop(SAEConfig(**state["sae"]["cfg"]), stored, acts, ranks, device)
                loop.go_on_from(path, state)
            except rank_loop.Damaged as error:
                wrong.append(str(error))
                continue
            loop.checkpoint_errors += [f"{sentence} The run went on from an older one." for sentence in wrong]
            return loop
        if wrong:
            raise ValueError(f"None of the {len(wrong)} checkpoints in {config.checkpoint_dir} is whole. {wrong[0]}")
        return self._new_loop(cfg, config, acts, ranks, device)

    def _new_loop(
        self, cfg: SAEConfig, config: TrainConfig, acts: Any, ranks: Ranks, device: str | torch.device
    ) -> RankLoop:
        if self.split == "features":
            # what looks at the whole SAE while it trains would have to put it together first
            config = config.replace(n_snapshots=0, n_evaluations=0)
            sae = feature_sharded(cfg, ranks, device)
        else:
            config = config if ranks.rank == 0 else config.replace(n_snapshots=0, n_evaluations=0)
            sae = data_parallel(cfg, ranks, device)
        return RankLoop(sae, Vectors(acts, sae), config, held_out_score(acts, None), ranks)

    def _check_output(self, goes_on: bool) -> None:
        """ValueError if the SAE could not be saved at the end, or would take the place of another one."""
        output = Path(self.output) if self.output is not None else None
        if output is not None and output.exists() and not output.is_dir():
            raise ValueError(f"output is {self.output!r}, which is a file: name a folder for the SAE.")
        if output is not None and not goes_on and (output / "cfg.json").exists():
            raise ValueError(
                f"The folder {self.output!r} holds an SAE already, and this job begins anew. "
                "Choose another output, or move that one away."
            )

    def _check_same(self, state: Mapping[str, Any], cfg: SAEConfig, config: TrainConfig) -> None:
        """ValueError if the checkpoint of this state is not of such an SAE, trained so, or is further already."""
        # as configs, for options that are newer than the checkpoint
        before = {**SAEConfig(**state["sae"]["cfg"]).to_dict(), **TrainConfig(**state["config"]).to_dict()}
        stored, now = (json.loads(json.dumps(some)) for some in (before, {**cfg.to_dict(), **config.to_dict()}))
        folder = config.checkpoint_dir
        apart = {"n_tokens", "checkpoint_dir"} | {name for name in FROM_N_TOKENS if name not in self.train}
        if not (stored["n_snapshots"] or stored["n_evaluations"]):
            apart |= {"n_snapshots", "n_evaluations"}  # there are none where the features were spread
        apart |= {LIVE.get(event["name"], event["name"]) for event in state["events"]}
        differing = [name for name in now if name not in apart and now[name] != stored[name]]
        if differing:
            told = ", ".join(f"{name} ({stored[name]!r} there, {now[name]!r} in the job)" for name in differing)
            raise ValueError(
                f"The folder {folder} holds checkpoints of a run with other settings: {told}. Make them those of the "
                "run (n_tokens alone may change), or choose another checkpoint_dir."
            )
        if config.n_tokens < state["tokens"]:
            raise ValueError(
                f"n_tokens is {config.n_tokens:,}, but the run in {folder} has trained on {state['tokens']:,} vectors "
                "already. Give more, or choose another checkpoint_dir."
            )

    def finish(self, run: TrainingRun) -> SAE | None:
        """Wait for a run of `start`, put its SAE together in process 0, and save it to `output` there.

        Returns the SAE; None in other processes whose features were spread, for they never have the whole.
        """
        run.wait()
        sae = whole_sae(run.sae)
        if self.output is not None and sae is not None and Ranks().rank == 0:
            save_sae(sae, self.output)
        return sae

    def _activations(self, device: torch.device) -> Any:
        from saewidgets.activations import ActivationCache, ActivationStream

        options = dict(self.activations)
        if "cache" in options:
            if without := [name for name in ("model", "texts", "hook_name", "context_size") if name in options]:
                raise ValueError(
                    f"[activations] has a cache, which takes the place of {', '.join(without)}: what it holds was "
                    "decided when it was written. Leave these out, or the cache."
                )
            return ActivationCache.open(options.pop("cache"), **options)
        from saewidgets.models import load_model, load_texts

        model = load_model(options.pop("model", None), device=device)
        texts = Path(options.pop("texts")) if "texts" in options else load_texts()
        return ActivationStream(model, texts, **options)


def _newest_state(saved: Sequence[Path]) -> dict[str, Any]:
    """What is no tensor, of the newest checkpoint that can be read. ValueError if there is none."""
    for path in saved[:0:-1]:
        with suppress(ValueError):
            return checkpoints.read_state(path)
    return checkpoints.read_state(saved[0])


def device_here() -> torch.device:
    """The GPU of this process (torchrun's LOCAL_RANK), or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    return device

"""What a sweep tells: how its SAEs differ, a row for each, and the frontier between sparse and exact."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from saewidgets.sae import SAEConfig
from saewidgets.sae.architectures import get_architecture
from saewidgets.sae.config import SHARED
from saewidgets.training.config import TrainConfig
from saewidgets.training.live import label as event_label

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22")
DASHES = ("solid", "dash", "dot", "dashdot")
"""Curves are told apart by colour, and by dashes once the colours are used up."""

MEASURES = ("l0", "explained_variance", "ce_loss_recovered", "dead_fraction", "loss")
"""Columns of `SweepRun.table` behind what differs: those of the last row of each SAE's metrics."""

OWN_FIELDS = ("checkpoint_dir",)
"""Fields of TrainConfig that differ in every sweep and say nothing."""


def differences(configs: Sequence[SAEConfig], train_configs: Sequence[TrainConfig]) -> list[dict[str, Any]]:
    """For each SAE, its values of the options in which the SAEs of a sweep differ; None where it has no such option.

    An option counts if those that read it do not all agree.
    """
    read: list[dict[str, Any]] = []
    for cfg, config in zip(configs, train_configs, strict=True):
        reads = get_architecture(cfg.architecture).reads
        own = {
            field.name: getattr(cfg, field.name)
            for field in dataclasses.fields(cfg)
            if reads is None or field.name in SHARED | reads
        }
        trained = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        read.append({**own, **{name: value for name, value in trained.items() if name not in OWN_FIELDS}})
    names = dict.fromkeys(name for values in read for name in values)
    differ = [name for name in names if len({repr(values[name]) for values in read if name in values}) > 1]
    return [{name: values.get(name) for name in differ} for values in read]


def label(number: int, differing: Mapping[str, Any]) -> str:
    """An SAE of a sweep in a few words: "3: topk, k=32"."""
    words = [
        str(value) if name == "architecture" else f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in differing.items()
        if value is not None
    ]
    return f"{number}: {', '.join(words)}" if words else str(number)


def table(
    differing: Sequence[Mapping[str, Any]], rows: Sequence[Sequence[Mapping[str, float]]], errors: Mapping[int, str]
) -> pd.DataFrame:
    """A row per SAE: the options that differ, the measures of its last row (NaN before there is one), its error."""
    import pandas as pd

    told = [
        {
            **differing[i],
            **{name: _last(list(rows[i]), name) for name in MEASURES},
            "tokens": int(rows[i][-1]["tokens"]) if rows[i] else 0,
            "error": errors.get(i, ""),
        }
        for i in range(len(differing))
    ]
    frame = pd.DataFrame(told, index=pd.RangeIndex(len(told), name="sae"))
    for name in differing[0]:
        frame[name] = frame[name].convert_dtypes()  # whole numbers stay whole beside an SAE without the option
    return frame


def _last(rows: Sequence[Mapping[str, float]], name: str) -> float:
    """The last value that was measured."""
    return next((row[name] for row in reversed(rows) if not math.isnan(row[name])), math.nan)


def frontier(l0: Sequence[float], explained_variance: Sequence[float]) -> list[int]:
    """The points that no other beats in both: fewer active features and more variance explained. By rising L0."""
    best: list[int] = []
    points = [i for i in range(len(l0)) if not math.isnan(l0[i]) and not math.isnan(explained_variance[i])]
    for i in sorted(points, key=lambda i: (l0[i], -explained_variance[i])):
        if not best or explained_variance[i] > explained_variance[best[-1]]:
            best.append(i)
    return best


class Mark(NamedTuple):
    """What one `set` changed, on the curves."""

    label: str
    step: int
    tokens: int


def marks(events: Sequence[tuple[int, Mapping[str, Any]]], n: int) -> list[Mark]:
    """Events, each with the number of its SAE, as marks. What one `set` did to several is one.

    In the order of the calls. An event that no call made ("call" is None) is the same for all that have it at a step.
    """
    together: dict[tuple[Any, ...], list[tuple[int, Mapping[str, Any]]]] = {}
    for sae, event in sorted(events, key=lambda pair: (pair[1]["tokens"], pair[1]["call"] or 0)):
        together.setdefault((event["tokens"], event["call"], event["name"], event["new"]), []).append((sae, event))
    told: list[Mark] = []
    for (tokens, _, name, _), same in together.items():
        words = event_label(same[0][1])
        if len({event["old"] for _, event in same}) > 1:
            words = f"{str(name).replace('_', ' ')} →{words.rpartition('→')[2]}"
        who = "" if len(same) == n else f"{', '.join(str(sae) for sae, _ in same)}: "
        told.append(Mark(who + words, same[0][1]["step"], tokens))
    return told


def figure(
    labels: Sequence[str],
    summary: pd.DataFrame,
    metrics: pd.DataFrame,
    dead_window: int,
    changes: Sequence[Mark] = (),
) -> go.Figure:
    """Explained variance against L0, a point per SAE, and the curves of all, as a plotly figure.

    `summary` as `table` gives it, `metrics` with a column `sae`, `changes` as `marks` gives them: a line each in every
    panel of curves.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    panels = {
        "explained_variance": "explained variance",
        "l0": "L0",
        "dead_fraction": f"dead (silent for {dead_window:,} vectors)",
    }
    titles = ["explained variance against L0", *panels.values()]
    fig = make_subplots(rows=2, cols=2, subplot_titles=titles, vertical_spacing=0.17)
    l0, explained = summary["l0"].tolist(), summary["explained_variance"].tolist()
    best = frontier(l0, explained)
    line = go.Scatter(
        x=[l0[i] for i in best], y=[explained[i] for i in best], mode="lines", line_color="#aaaaaa",
        name="frontier", showlegend=False, hoverinfo="skip",
    )  # fmt: skip
    fig.add_trace(line, row=1, col=1)
    for i, text in enumerate(labels):
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]
        point = go.Scatter(
            x=[l0[i]], y=[explained[i]], mode="markers+text", text=[str(i)], textposition="top center", name=text,
            legendgroup=str(i), marker={"color": colour, "size": 9}, showlegend=False, cliponaxis=False,
        )  # fmt: skip
        fig.add_trace(point, row=1, col=1)
        own = metrics[metrics["sae"] == i]
        for place, column in enumerate(panels, 1):
            curve = go.Scatter(
                x=own["tokens"], y=own[column], mode="lines", line={"color": colour, "dash": dash}, name=text,
                legendgroup=str(i), showlegend=place == 1,
            )  # fmt: skip
            fig.add_trace(curve, row=place // 2 + 1, col=place % 2 + 1)
    for number, (text, _, tokens) in enumerate(changes):
        for row, col in ((1, 2), (2, 1), (2, 2)):
            fig.add_vline(x=tokens, line_dash="dot", line_color="#888888", line_width=1, row=row, col=col)
        fig.add_annotation(
            x=tokens, y=1 - 0.1 * (number % 9), xref="x2", yref="y2 domain", text=text, showarrow=False,
            xanchor="left", font_size=10,
        )  # fmt: skip
    fig.update_xaxes(rangemode="tozero", row=1, col=1)
    # what the first steps fall below 0 by would leave no room for the rest
    floor = min(0.0, *(value for value in explained if not math.isnan(value)), 0.0)
    fig.update_yaxes(autorangeoptions={"minallowed": floor}, row=1, col=2)
    fig.update_xaxes(title_text="vectors", row=2)
    fig.update_yaxes(rangemode="tozero", row=2)
    fig.update_yaxes(title_text="explained variance", title_standoff=4, row=1, col=1)
    fig.update_layout(
        height=520, margin={"l": 50, "r": 20, "t": 40, "b": 40}, legend={"orientation": "h", "y": -0.12}
    )  # fmt: skip
    return fig

"""What a run tells: its progress, its table, its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from saewidgets.training.config import TrainConfig
from saewidgets.training.live import label

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from saewidgets.training.background import Work

COLUMNS = {
    "step": "steps taken",
    "tokens": "activation vectors trained on",
    "epoch": "times gone through the stream",
    "loss": "mean loss of the steps since the last row: squared error per component of the scaled input, and AuxK",
    "explained_variance": "1 - sum ||x - xhat||^2 / sum ||x - mean||^2 over the vectors since the last row",
    "l0": "mean number of active features over the same vectors",
    "dead_fraction": "share of features silent for `dead_window` vectors or more",
    "dead_window": "vectors of silence after which a feature counts as dead",
    "deaths": "features that became dead since the last row",
    "births": "dead features that became active again since the last row",
    "lr": "learning rate now",
    "sparsity": "weight of the sparsity penalty now; NaN where there is none",
    "k": "active features that are trained with now; NaN where the architecture has no k",
    "vectors_per_second": "since the last row, without pauses and measuring; slower where a block was read",
    "seconds": "time since the start without pauses: reading activations, training, measuring",
    "ce_loss_recovered": "on held-out text; NaN in rows where it was not measured",
    "skipped_steps": "steps left out because of NaN or infinities, since the start",
}
"""Columns of `run.metrics`, and what they mean. An architecture may add its own behind them."""

COUNTS = ("step", "tokens", "dead_window", "deaths", "births", "skipped_steps")


@dataclass(frozen=True)
class Progress:
    """How far a run was at one moment."""

    state: str
    step: int
    n_steps: int
    tokens: int
    n_tokens: int
    epoch: float | None
    n_epochs: float | None
    vectors_per_second: float | None
    seconds_left: float | None
    error: str | None

    @classmethod
    def of(cls, work: Work, state: str, error: BaseException | None) -> Progress:
        """How far a run's work is."""
        n_tokens, n_vectors = work.n_tokens, work.vectors.n_vectors
        seconds, tokens = work.clock.seconds, work.tokens
        rate = tokens / seconds if tokens and seconds else None
        return cls(
            state=state,
            step=work.step,
            n_steps=work.n_steps,
            tokens=tokens,
            n_tokens=n_tokens,
            epoch=tokens / n_vectors if n_vectors else None,
            n_epochs=n_tokens / n_vectors if n_vectors else None,
            vectors_per_second=rate,
            seconds_left=(n_tokens - tokens) / rate if rate else None,
            error=str(error) if error else None,
        )

    @property
    def message(self) -> str:
        """One line for people: "running: step 120 of 489, epoch 3 of 4.1"."""
        if self.error is not None:
            return f"{self.state} at step {self.step}: {self.error}"
        if self.state == "running" and self.step == 0:
            return "running: reading the first activations"
        epochs = ""
        if self.epoch is not None and self.n_epochs is not None:
            now: float = int(self.epoch) + 1
            if now > self.n_epochs:  # the last round is a part of one, or over
                now = self.epoch
            epochs = f", epoch {now:.3g} of {self.n_epochs:.3g}"
            if self.n_epochs < 1:
                epochs = f", {self.n_epochs:.2g} of an epoch"
        return f"{self.state}: step {self.step:,} of {self.n_steps:,}{epochs}"


def table(rows: list[dict[str, float]]) -> pd.DataFrame:
    """Metric rows as a DataFrame; the columns are there before the first row is."""
    import pandas as pd

    columns = list(dict.fromkeys([*COLUMNS, *(name for row in list(rows) for name in row)]))
    frame = pd.DataFrame(list(rows), columns=columns, dtype="float64")
    return frame.astype(dict.fromkeys(COUNTS, "int64"))


def figure(metrics: pd.DataFrame, config: TrainConfig, events: Sequence[Mapping[str, Any]] = ()) -> go.Figure:
    """Loss, explained variance, L0 and dead features against vectors seen, as a plotly figure; a line at each event."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    panels = [
        ("loss", "loss"),
        ("explained_variance", "explained variance"),
        ("l0", "L0"),
        ("dead_fraction", f"dead (silent for {config.dead_window or 0:,} vectors)"),
    ]
    fig = make_subplots(rows=2, cols=2, subplot_titles=[title for _, title in panels], vertical_spacing=0.15)
    for place, (column, title) in enumerate(panels):
        line = go.Scatter(
            x=metrics["tokens"], y=metrics[column], mode="lines", name=title, line_color="#1f77b4", showlegend=False
        )  # fmt: skip
        fig.add_trace(line, row=place // 2 + 1, col=place % 2 + 1)
    measured = metrics.dropna(subset=["ce_loss_recovered"])
    if len(measured):
        points = go.Scatter(
            x=measured["tokens"], y=measured["ce_loss_recovered"], mode="lines+markers",
            name="CE loss recovered", line_color="#ff7f0e", showlegend=True,
        )  # fmt: skip
        fig.add_trace(points, row=1, col=2)
        fig.data[1].showlegend = True  # two curves in one panel: each needs its name
    for number, event in enumerate(events):
        fig.add_vline(x=event["tokens"], line_dash="dot", line_color="#888888", line_width=1, row="all", col="all")
        # one below the other, so that changes at one moment stay readable
        fig.add_annotation(
            x=event["tokens"], y=1 - 0.1 * (number % 9), xref="x", yref="y domain", text=label(event), showarrow=False,
            xanchor="left", font_size=10,
        )  # fmt: skip
    if len(metrics):  # what the first steps fall below 0 by would leave no room for the rest
        floor = min(0.0, float(metrics["explained_variance"].iloc[-1]))
        fig.update_yaxes(autorangeoptions={"minallowed": floor}, row=1, col=2)
    fig.update_xaxes(title_text="vectors", row=2)
    fig.update_yaxes(rangemode="tozero", row=2)
    # inside the panel that has two curves, at the end that such curves leave free
    legend = {"x": 0.99, "xanchor": "right", "y": 0.6, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"}
    fig.update_layout(height=480, margin={"l": 50, "r": 20, "t": 40, "b": 40}, legend=legend)
    return fig

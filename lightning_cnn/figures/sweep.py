"""The pictures of a sweep: how its best value came about, and which settings mattered."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.importance import get_param_importances
from optuna.trial import FrozenTrial, TrialState

from lightning_cnn.engine.sweep.study import NUMBER, Study
from lightning_cnn.figures.plots import BLUE, ORANGE

FEWEST = 4  # finished trials of which a word about importance can be said


def history(study: Study) -> Figure:
    """The value of each trial in their order, and the best up to there."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    finished = study.finished
    numbers, values = _points(finished)
    least = study.mode == "min"
    axes.plot(numbers, values, "o", color=BLUE, label="finished")
    best = (np.minimum if least else np.maximum).accumulate(values)
    axes.step(numbers, best, where="post", color=ORANGE, label="best so far")
    pruned = [trial for trial in study.trials if trial.state == TrialState.PRUNED and trial.value is not None]
    if pruned:
        axes.plot(*_points(pruned), "x", color="grey", label="pruned, at its end")
    if values.size and values.min() > 0 and values.max() > 10 * values.min():
        axes.set_yscale("log")
    axes.set(xlabel="trial", ylabel=study.monitor, title=f"{study.home.name}: {len(finished)} finished trials")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def importance(study: Study) -> Figure | None:
    """How much each setting had to do with the value (PED-ANOVA, Watanabe et al. 2023); None of too few trials."""
    if len(study.finished) < FEWEST:
        return None
    shares: Mapping[str, float] = get_param_importances(study.optuna)
    if not shares:
        return None
    names = sorted(shares, key=lambda name: shares[name])
    figure = Figure(figsize=(7, 1.2 + 0.45 * len(names)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(names, [shares[name] for name in names], color=BLUE, height=0.6)
    axes.bar_label(bars, fmt="%.2f", padding=4)
    axes.set(xlim=(0, 1.1), xlabel=f"importance for {study.monitor}")
    axes.set_title(f"{study.home.name}: what mattered in {len(study.finished)} finished trials")
    axes.grid(axis="x", alpha=0.3)
    return figure


def _points(trials: Sequence[FrozenTrial]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers, counted from 1, and values of some trials."""
    numbers = [trial.user_attrs[NUMBER] + 1 for trial in trials]
    return np.array(numbers), np.array([trial.value for trial in trials], dtype=float)

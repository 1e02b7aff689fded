"""The course of the learning rate: four steps an epoch."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from noise import SIDE, Rates, classifier, rates, trainer
from torch.utils.data import DataLoader, IterableDataset

from lightning_cnn.errors import UserError
from lightning_cnn.tracking.progress import ProgressBar


def test_constant_rate() -> None:
    assert rates(classifier(lr=0.01), max_epochs=2) == [0.01] * 9


def test_warm_up() -> None:
    found = rates(classifier(lr=0.1, warmup_epochs=1.5), max_epochs=3)
    assert found == pytest.approx([0.001 + 0.099 * step / 6 for step in range(6)] + [0.1] * 7)


@pytest.mark.parametrize("min_lr", [0.0, 0.02])
def test_cosine(min_lr: float) -> None:
    found = rates(classifier(lr=0.1, schedule="cosine", min_lr=min_lr), max_epochs=2)
    assert found == pytest.approx(
        [min_lr + (0.1 - min_lr) * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(9)]
    )
    assert found[-1] == pytest.approx(min_lr)


def test_cosine_after_a_warm_up() -> None:
    found = rates(classifier(lr=0.1, schedule="cosine", warmup_epochs=1), max_epochs=2)
    assert found[:4] == pytest.approx([0.001, 0.02575, 0.0505, 0.07525])
    assert found[4:] == pytest.approx([0.05 * (1 + math.cos(math.pi * step / 8)) for step in range(4, 9)])


def test_linear() -> None:
    found = rates(classifier(lr=0.1, schedule="linear", min_lr=0.02), max_epochs=2)
    assert found == pytest.approx([0.1 - 0.01 * step for step in range(9)])


def test_steps() -> None:
    found = rates(classifier(lr=0.1, schedule="step", decay_epochs=1.0, decay_rate=0.5), max_epochs=3)
    assert found == pytest.approx([0.1] * 4 + [0.05] * 4 + [0.025] * 4 + [0.0125])
    assert rates(classifier(lr=0.1, schedule="step"), max_epochs=2) == pytest.approx([0.1] * 9)


def test_steps_are_updates_not_batches() -> None:
    found = rates(classifier(lr=0.1, schedule="linear"), max_epochs=2, accumulate_grad_batches=2)
    assert found == pytest.approx([0.1, 0.075, 0.05, 0.025, 0.0])
    model = classifier(lr=0.1, schedule="linear", warmup_epochs=1)
    found = rates(model, max_epochs=2, accumulate_grad_batches=3)  # three batches and one
    assert found == pytest.approx([0.001, 0.0505, 0.05, 0.025, 0.0])


def test_the_schedule_ends_with_the_run() -> None:
    """`max_steps` may end a run within an epoch; the epochs of a warm-up stay true epochs."""
    found = rates(classifier(lr=0.1, schedule="linear", warmup_epochs=1), max_epochs=10, max_steps=10)
    assert found[:4] == pytest.approx([0.001, 0.02575, 0.0505, 0.07525])
    assert found[4:] == pytest.approx([0.06, 0.05, 0.04, 0.03, 0.02, 0.01, 0.0])


def test_a_schedule_needs_an_end() -> None:
    with pytest.raises(UserError, match=r"`trainer.max_epochs` or `trainer.max_steps`"):
        rates(classifier(schedule="cosine"), max_epochs=-1, max_time={"seconds": 5})
    assert rates(classifier(), max_epochs=-1, max_steps=3) == [1e-3] * 4


def test_a_schedule_where_steps_alone_end_the_run() -> None:
    found = rates(classifier(lr=0.1, schedule="linear", warmup_epochs=1), max_epochs=-1, max_steps=8)
    assert found == pytest.approx([0.001, 0.02575, 0.0505, 0.07525, 0.05, 0.0375, 0.025, 0.0125, 0.0])


class Endless(IterableDataset[Any]):
    """Batches without an end."""

    def __iter__(self) -> Iterator[Any]:
        return itertools.repeat((torch.zeros(2, 1, SIDE, SIDE), torch.tensor([0, 1])))


def test_a_schedule_over_data_without_a_length(caplog: pytest.LogCaptureFixture) -> None:
    """Its progress bar, too, which says how many batches there were."""
    noted, loader = Rates(), DataLoader(Endless(), batch_size=None)
    options = {"limit_val_batches": 0, "max_epochs": -1, "max_steps": 4, "enable_progress_bar": True}
    with caplog.at_level("INFO", "lightning_cnn"):
        run = trainer(noted, ProgressBar(), **options)
        run.fit(classifier(lr=0.1, schedule="linear"), loader)
    assert noted.seen == pytest.approx([0.1, 0.075, 0.05, 0.025])
    assert any("| 4/? [" in line for line in caplog.messages)

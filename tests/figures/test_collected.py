"""What is kept of the examples of a validation."""

import torch

from lightning_cnn.figures.collected import All, Collected, Sample, Worst


def test_what_is_kept() -> None:
    collected = Collected({"answers": All(), "worst": Worst(2, by="losses"), "sample": Sample(3)})
    losses = torch.tensor([0.3, 0.1, 0.9, 0.2, 0.5])
    for rows in (slice(0, 3), slice(3, 5)):
        collected.add({"losses": losses[rows], "labels": torch.arange(5)[rows], "images": torch.arange(5)[rows]})
    collected.gather()
    assert collected.kept["answers"]["labels"].tolist() == [0, 1, 2, 3, 4] and "images" not in collected.kept["answers"]
    assert collected.kept["worst"]["labels"].tolist() == [2, 4] == collected.kept["worst"]["images"].tolist()
    assert len(set(collected.kept["sample"]["images"].tolist())) == 3


def test_a_single_example_stays_a_row() -> None:
    """torchmetrics makes scalars of tensors with one value."""
    collected = Collected({"answers": All()})
    collected.add({"labels": torch.tensor([4]), "images": torch.zeros(1, 1, 2, 2)})
    collected.gather()
    assert collected.kept["answers"]["labels"].tolist() == [4]

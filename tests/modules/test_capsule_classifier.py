"""Capsule networks and their task: against loops over capsules, and trained on real digits."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from image_sets import write_mnist
from pytorch_lightning import Trainer, seed_everything
from torch import Tensor

from lightning_cnn.architectures.capsules import CapsuleDecoder, RoutingByAgreement, SelfAttentionRouting
from lightning_cnn.datamodules import Digits, OverlappingDigits
from lightning_cnn.errors import UserError
from lightning_cnn.modules import CapsuleClassifier

WEIGHT = 0.01  # of the reconstruction; more than usual, for the few steps
QUIET: dict[str, Any] = {
    **{"accelerator": "cpu", "logger": False, "enable_checkpointing": False},
    **{"enable_progress_bar": False, "enable_model_summary": False},
}


def parameters(network: torch.nn.Module) -> list[int]:
    layers = [layer for layer in network.modules() if list(layer.parameters(recurse=False))]
    return [sum(value.numel() for value in layer.parameters(recurse=False)) for layer in layers]


def test_counts() -> None:
    """Sabour et al. 2017, section 4; Mazzia et al. 2021, table 1 (161 thousand)."""
    assert parameters(timm.create_model("capsnet")) == [20_992, 5_308_672, 1_474_560]
    assert sum(parameters(timm.create_model("efficient_capsnet"))) == 161_824
    assert sum(parameters(timm.create_model("capsnet_small"))) == 705_728
    # section 5.1: 35.4 million
    convolutions = [6_656, 1_638_656, 819_328]
    assert parameters(timm.create_model("capsnet_baseline")) == [*convolutions, 32_915_784, 63_168, 1_930]
    with_decoder = CapsuleClassifier("capsnet")
    assert sum(parameters(with_decoder)) == 8_215_568
    assert sum(parameters(CapsuleClassifier("capsnet", reconstruction_weight=0.0))) == 6_804_224


def test_routing_by_agreement_is_that_of_the_paper() -> None:
    """Procedure 1, a loop for each capsule."""
    torch.manual_seed(0)
    layer = RoutingByAgreement(5, 3, 4, 6, iterations=3).double()
    below = torch.randn(2, 5, 4, dtype=torch.float64)
    found = layer.capsules(below.flatten(1)).detach().numpy()
    weight = layer.weight.detach().numpy()
    for image in range(2):
        votes = np.array([[below[image, i].numpy() @ weight[i, :, j] for j in range(3)] for i in range(5)])
        logits = np.zeros((5, 3))
        for _ in range(3):
            capsules = np.zeros((3, 6))
            for j in range(3):
                total = np.zeros(6)
                for i in range(5):
                    total += np.exp(logits[i, j]) / np.exp(logits[i]).sum() * votes[i, j]
                squared = total @ total
                capsules[j] = squared / (1 + squared) * total / np.sqrt(squared)
            for i in range(5):
                for j in range(3):
                    logits[i, j] += votes[i, j] @ capsules[j]
        np.testing.assert_allclose(found[image], capsules, rtol=1e-10)
        lengths = layer(below.flatten(1))[image].detach().numpy()
        np.testing.assert_allclose(lengths, np.linalg.norm(capsules, axis=1), rtol=1e-10)


def test_self_attention_routing_is_that_of_the_paper() -> None:
    """Equations 5 to 8: the sums of the attention's rows as logits, a prior, and the steep squash."""
    torch.manual_seed(0)
    layer = SelfAttentionRouting(5, 3, 4, 6).double()
    torch.nn.init.normal_(layer.prior)
    below = torch.randn(1, 5, 4, dtype=torch.float64)
    found = layer.capsules(below.flatten(1))[0].detach().numpy()
    weight, prior = layer.weight.detach().numpy(), layer.prior.detach().numpy()
    votes = np.array([[below[0, i].numpy() @ weight[i, :, j] for i in range(5)] for j in range(3)])
    attention = np.array([votes[j] @ votes[j].T / np.sqrt(6) for j in range(3)]).sum(2)
    shares = np.exp(attention) / np.exp(attention).sum(0) + prior[:, :, 0]
    for j in range(3):
        total = shares[j] @ votes[j]
        length = np.linalg.norm(total)
        np.testing.assert_allclose(found[j], (1 - np.exp(-length)) * total / length, rtol=1e-10)


def test_capsules_of_nothing_have_finite_gradients() -> None:
    layer = RoutingByAgreement(5, 3, 4)
    below = torch.zeros(2, 20, requires_grad=True)
    layer(below).sum().backward()
    assert below.grad is not None and below.grad.isfinite().all()


@pytest.fixture(scope="module")
def trained() -> tuple[CapsuleClassifier, Digits, dict[str, float]]:
    """A small capsule network after some epochs on real digits."""
    seed_everything(0, verbose=False)
    data = Digits(image_size=20, normalize="unit", batch_size=32)
    module = CapsuleClassifier("capsnet_small", **data.facts(), lr=0.002, reconstruction_weight=WEIGHT)
    trainer = Trainer(max_epochs=8, **QUIET)
    trainer.fit(module, data)
    (tested,) = trainer.test(module, data, verbose=False)
    return module, data, {**{name: float(value) for name, value in trainer.callback_metrics.items()}, **tested}


def test_it_learns_real_digits_and_measures(trained: tuple[CapsuleClassifier, Digits, dict[str, float]]) -> None:
    module, data, tested = trained
    assert tested["test/acc"] > 0.93
    images, labels = data.dataset("test")[torch.arange(360)]
    pixels, labels = (images / 255).double(), labels.numpy()
    module = copy.deepcopy(module).double().eval()
    with torch.no_grad():
        capsules = module.network.capsules(pixels).numpy()  # type: ignore[operator]
    lengths = np.linalg.norm(capsules, axis=2)
    assert tested["test/acc"] == pytest.approx((lengths.argmax(1) == labels).mean(), abs=1e-6)
    margins, errors = [], []
    for image, label in enumerate(labels):
        own = [max(0, 0.9 - lengths[image, label]) ** 2]
        others = [0.5 * max(0, lengths[image, n] - 0.1) ** 2 for n in range(10) if n != label]
        margins.append(sum(own + others))
        only = torch.zeros(1, 10, 16, dtype=torch.float64)
        only[0, label] = torch.from_numpy(capsules[image, label])
        with torch.no_grad():
            drawn = module.decoder(only, torch.ones(1, 10, dtype=torch.float64))  # type: ignore[misc]
        errors.append(float((drawn[0] - pixels[image]).square().sum()))
    assert tested["test/reconstruction"] == pytest.approx(np.mean(errors), rel=1e-4)
    assert tested["test/loss"] == pytest.approx(np.mean(margins) + WEIGHT * np.mean(errors), rel=1e-4)
    assert np.mean(errors) < 0.8 * float((pixels - pixels.mean(0)).square().sum((1, 2, 3)).mean())


def test_its_figures(trained: tuple[CapsuleClassifier, Digits, dict[str, float]]) -> None:
    module, data, _ = trained
    images, labels = data.dataset("test")[torch.arange(40)]
    pixels = (images / 255).float()
    with torch.no_grad():
        capsules = module.network.capsules(pixels)  # type: ignore[operator]
    said = capsules.norm(dim=2).argmax(1)
    rows = {"labels": labels, "predictions": said, "capsules": capsules, "images": pixels, "order": torch.zeros(40)}
    figures = dict(module.figures({"answers": rows, "worst": rows, "sample": rows}, data, "test"))
    assert [*figures] == ["confusion", "worst", "predictions", "reconstructions", "dimensions"]
    texts = [text.get_text() for text in figures["reconstructions"].axes[0].texts]
    assert texts == [text for number in said[:16].tolist() for text in ("image", str(number))]
    assert len(figures["dimensions"].axes[0].texts) == 16 * 11


def test_two_digits_in_one_image(tmp_path: Path) -> None:
    """The longest two capsules count, and each digit is reconstructed by itself."""
    write_mnist(tmp_path, 60, 30)
    data = OverlappingDigits(str(tmp_path), batch_size=8)
    module = CapsuleClassifier("efficient_capsnet", **data.facts())
    assert module.labels_per_image == 2 and module.validated == ("loss", "acc", "f1", "exact", "reconstruction")
    trainer = Trainer(max_epochs=1, **QUIET)
    trainer.fit(module, data)
    (tested,) = trainer.test(module, data, verbose=False)
    images, labels, alone, classes = data.on_after_batch_transfer(data.dataset("test")[torch.arange(30)], 0)
    module.eval()
    with torch.no_grad():
        capsules = module.network.capsules(images)  # type: ignore[operator]
    lengths, errors, right = capsules.norm(dim=2), 0.0, []
    for image in range(30):
        best = {*lengths[image].argsort(descending=True)[:2].tolist()}
        true = {*classes[image].tolist()}
        assert true == {*labels[image].nonzero().flatten().tolist()} and len(true) == 2
        right.append(len(best & true) / 2)
        for digit in range(2):
            only = torch.zeros(1, 10)
            only[0, classes[image, digit]] = 1
            with torch.no_grad():
                drawn = module.decoder(capsules[image : image + 1], only)  # type: ignore[misc]
            pixels = data.preprocessing.unscale(alone[image, digit])
            errors += float((drawn[0] - pixels).square().sum())
    assert tested["test/acc"] == pytest.approx(np.mean(right), abs=1e-6)
    assert tested["test/exact"] == pytest.approx(np.mean([value == 1 for value in right]), abs=1e-6)
    assert tested["test/reconstruction"] == pytest.approx(errors / 30, rel=1e-4)
    header, rows = module.prediction_table([lengths[:3]], data)  # type: ignore[operator, arg-type]
    assert header == ["labels", *"0123456789"]
    assert all(len(row[0].split()) == 2 for row in rows) and rows[0][1:] == pytest.approx(lengths[0].tolist())


def test_a_network_without_capsules() -> None:
    with pytest.raises(UserError, match=r"`model.architecture` lenet5 has no capsules: .* capsnet_small"):
        CapsuleClassifier("lenet5")


def test_the_decoder_sees_what_is_chosen_alone() -> None:
    decoder = CapsuleDecoder(3, 4, (1, 5, 5))
    capsules, chosen = torch.randn(2, 3, 4), torch.tensor([[0, 1, 0], [1, 0, 0]])
    changed = capsules.clone()
    changed[0, 0] += 1
    assert torch.equal(decoder(capsules, chosen), decoder(changed, chosen))
    drawn: Tensor = decoder(changed, torch.ones_like(chosen))
    assert drawn.shape == (2, 1, 5, 5) and not torch.equal(drawn, decoder(capsules, torch.ones_like(chosen)))

import math
import shutil
from functools import partialmethod
from typing import Any

import numpy as np
import pytest
import timm
import torch
from noise import CLASSES, SIDE, Noise, classifier, trainer
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EMAWeightAveraging
from sklearn.metrics import accuracy_score, f1_score, recall_score, top_k_accuracy_score
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn import functional as F

from lightning_cnn.datamodules import Digits
from lightning_cnn.modules import ImageClassifier

# learning


# the others take too long for a test; `test_architectures` shows that each of their layers gets a gradient
QUICK = ("linear", "ffnn", "lenet5", "lenet5_1998", "mlp_cifar", "cnn3", "alexnet_cifar", "cifar_fast")


@pytest.mark.parametrize("name", QUICK)
def test_learns_a_batch_of_real_digits_by_heart(name: str) -> None:
    channels, side, _ = timm.get_pretrained_cfg(name).input_size
    torch.manual_seed(0)
    epochs, lr = (80, 2e-3) if channels == 1 else (60, 1e-3) if name in ("cnn3", "mlp_cifar") else (20, 2e-3)
    if name == "alexnet_cifar":
        epochs, lr = 8, 5e-4
    run = trainer(max_epochs=epochs, overfit_batches=1, limit_val_batches=0)
    model = ImageClassifier(name, image_size=side, optimizer="adam", lr=lr)
    run.fit(model, Digits(batch_size=12 if name == "cifar_fast" else 32, image_size=side))
    assert run.callback_metrics["train/acc"] == 1
    assert run.callback_metrics["train/loss"] < 0.3


# metrics


def expected_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Over the whole set at once, by scikit-learn and by hand."""
    probabilities, truth = logits.softmax(1).double().numpy(), labels.numpy()
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs((predicted == truth)[bins == b].mean() - confidence[bins == b].mean()) for b in set(bins)]
    return {
        "loss": F.cross_entropy(logits, labels).item(),
        "acc": float(accuracy_score(truth, predicted)),
        "f1": float(f1_score(truth, predicted, labels=np.unique(truth), average="macro")),
        "ece": float(sum(gap * (bins == b).mean() for gap, b in zip(gaps, set(bins), strict=True))),
        "top5": float(top_k_accuracy_score(truth, probabilities, k=5, labels=range(logits.shape[1]))),
    }


def hard_and_easy(model: ImageClassifier, easy: int = 3) -> Noise:
    """Labels of which about `easy` in five are what the model says."""
    data = Noise()
    with torch.no_grad():
        said = model.eval()(data.images).argmax(1)
    return Noise(torch.where(torch.arange(37) % 5 < easy, said, data.labels))


def stretched(**options: Any) -> ImageClassifier:
    """A model with opinions: logits far enough apart to fill several bins of confidence."""
    model = classifier(**options)
    with torch.no_grad():
        model.network.get_classifier().weight *= 6  # type: ignore[operator]
    return model


def logits_of(model: torch.nn.Module, data: Noise) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model.eval()(data.images)
    return logits


@pytest.mark.parametrize("stage", ["val", "test"])
def test_metrics_are_those_of_the_whole_set(stage: str) -> None:
    model = stretched(label_smoothing=0.3)
    run = trainer()
    for easy in (3, 2):  # nothing is left over from one measurement to the next
        data = hard_and_easy(model, easy)
        logits = logits_of(model, data)
        (run.validate if stage == "val" else run.test)(model, data, verbose=False)
        found = {name: value.item() for name, value in run.callback_metrics.items()}
        expected = expected_metrics(logits, data.labels)
        assert 0.3 < expected["acc"] < expected["top5"] < 1
        assert expected["f1"] != pytest.approx(expected["acc"], abs=0.01)
        for name, value in expected.items():
            assert found.pop(f"{stage}/{name}") == pytest.approx(value, abs=1e-5), name
        if stage == "test":
            truth, predicted = data.labels.numpy(), logits.argmax(1).numpy()
            there = np.unique(truth)
            each = recall_score(truth, predicted, labels=there, average=None)
            assert [found.pop(f"test/acc_{number}") for number in there] == pytest.approx(list(each))
        assert not found


def test_validation_in_a_training_counts_each_image_once() -> None:
    """The sanity check before it must leave nothing behind; with a learning rate of 0 all epochs measure the same."""
    model = stretched(lr=0.0)
    data = hard_and_easy(model)
    expected = expected_metrics(logits_of(model, data), data.labels)
    measured = []

    class Notes(Callback):
        def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if not trainer.sanity_checking:
                measured.append({name: value.item() for name, value in trainer.callback_metrics.items()})

        on_train_epoch_end = on_validation_epoch_end

    trainer(Notes(), max_epochs=2, num_sanity_val_steps=2).fit(model, data)
    for values in measured[1::2]:
        for name, value in expected.items():
            assert values[f"val/{name}"] == pytest.approx(value, abs=1e-5), name


def test_training_metrics_weigh_every_image_alike() -> None:
    model = classifier(lr=0.0, architecture_options={"drop_rate": 0.0}, label_smoothing=0.2)
    data, run = Noise(), trainer(limit_val_batches=0)
    run.fit(model, data)
    with torch.no_grad():
        logits = model(data.train)
    logged = {name: value.item() for name, value in run.callback_metrics.items()}
    loss = F.cross_entropy(logits, data.train_labels, label_smoothing=0.2)
    assert logged["train/loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert logged["train/acc"] == pytest.approx((logits.argmax(1) == data.train_labels).float().mean().item(), abs=1e-5)
    last = F.cross_entropy(logits[-2:], data.train_labels[-2:], label_smoothing=0.2)  # that of an epoch is logged
    assert logged["train/loss_step"] == pytest.approx(last.item(), abs=1e-5)


def test_label_smoothing() -> None:
    logits = torch.tensor([[2.0, 0, 0, 0]])
    model = classifier(num_classes=4, label_smoothing=0.4)
    model.forward = lambda images: logits  # type: ignore[method-assign]
    model.log = lambda *args, **options: None  # type: ignore[method-assign]
    loss = model.training_step((torch.zeros(1, 1, SIDE, SIDE), torch.tensor([0])), 0)
    normal = math.log(math.exp(2) + 3)
    assert loss.item() == pytest.approx(normal - 2 * (0.6 + 0.1))  # 0.4 is spread over all four classes


def test_top5_only_with_more_than_ten_classes() -> None:
    logits = torch.arange(11.0).expand(4, -1)
    labels = torch.tensor([10, 6, 5, 6])
    for classes, wanted in ((10, None), (11, 0.75)):
        model, data = classifier(num_classes=classes), Noise(labels.clamp(max=classes - 1))
        data.images = data.images[:4]
        model.forward = lambda images, classes=classes: logits[:, :classes]  # type: ignore[method-assign,misc]
        run = trainer()
        run.test(model, data, verbose=False)
        assert run.callback_metrics.get("test/top5") == wanted


def test_a_class_that_does_not_occur_is_left_out() -> None:
    """Also out of the macro mean, though it is predicted; a NaN of a batch is not left out of the loss."""
    data, run = Noise(torch.arange(37) % 3), trainer()
    model = stretched()
    run.test(model, data, verbose=False)
    truth, predicted = data.labels.numpy(), logits_of(model, data).argmax(1).numpy()
    assert set(predicted) - {0, 1, 2}
    wanted = f1_score(truth, predicted, labels=[0, 1, 2], average="macro")
    found = {name: value.item() for name, value in run.callback_metrics.items()}
    assert found["test/f1"] == pytest.approx(wanted) != f1_score(truth, predicted, average="macro")
    assert {name for name in found if "/acc_" in name} == {"test/acc_0", "test/acc_1", "test/acc_2"}
    data.images[-1] = math.nan
    run.test(model, data, verbose=False)
    assert run.callback_metrics["test/loss"].isnan() and run.callback_metrics["test/ece"].isnan()


def test_class_names_come_from_the_data() -> None:
    data, run = Noise(), trainer()
    data.class_names = [f"kind {number}" for number in range(CLASSES)]  # type: ignore[attr-defined]
    run.test(classifier(), data, verbose=False)
    there = {f"test/acc_kind {number}" for number in data.labels.tolist()}
    assert {name for name in run.callback_metrics if "/acc_" in name} == there


def test_predictions_are_probabilities() -> None:
    model, data = stretched(), Noise()
    found: Any = trainer().predict(model, data.test_dataloader())
    assert torch.allclose(torch.cat(found), logits_of(model, data).softmax(1), atol=1e-6)


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("shifts", [False, True])
def test_logits_are_averaged_over_flips_and_shifts(flips: bool, shifts: bool) -> None:
    options = {"architecture_options": {"drop_rate": 0.0}, "flip_average": flips, "shift_average": shifts}
    model, data = classifier(**options), Noise()
    plain = model.network
    images = data.images.numpy()
    # rows and columns of each view: index -1 is the second pixel, as NumPy's "reflect"
    wide = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    side = images.shape[-1]
    views = [(0.5, images), (0.25, wide[..., :side, :side]), (0.25, wide[..., 2:, 2:])] if shifts else [(1.0, images)]
    if flips:
        views = [(share / 2, view) for share, seen in views for view in (seen, seen[..., ::-1].copy())]
    with torch.no_grad():
        expected = sum(share * plain.eval()(torch.from_numpy(view)) for share, view in views)
        assert torch.allclose(model.eval()(data.images), expected, atol=1e-6)
        assert torch.allclose(model.train()(data.images), plain(data.images), atol=1e-6)
    found: Any = trainer().predict(model, data.test_dataloader())
    assert torch.allclose(torch.cat(found), expected.softmax(1), atol=1e-6)
    (tested,) = trainer().test(model, data, verbose=False)
    assert tested["test/acc"] == pytest.approx(accuracy_score(data.labels, expected.argmax(1)))
    assert tested["test/loss"] == pytest.approx(F.cross_entropy(expected, data.labels).item(), abs=1e-5)


# the ways to compute


def test_channels_last_gives_equal_outputs() -> None:
    images = torch.randn(4, 3, 32, 32)
    options = {"architecture": "resnet18", "num_classes": 5, "in_channels": 3, "image_size": 32}
    plain, last = classifier(**options), classifier(**options, channels_last=True)
    assert torch.allclose(plain.eval()(images), last.eval()(images), atol=1e-4)
    seen = []
    first = next(layer for layer in last.modules() if isinstance(layer, torch.nn.Conv2d))
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    last(images)
    for tensor in (seen[0], first.weight):
        assert tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


NO_COMPILER = not (shutil.which("g++") or shutil.which("clang++"))
REAL = pytest.param(
    "inductor", marks=[pytest.mark.slow, pytest.mark.skipif(NO_COMPILER, reason="no C++ compiler")]
)  # fmt: skip


@pytest.mark.parametrize("backend", ["aot_eager", REAL])
def test_compiled(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is traced, forward and backward; only the slow case waits for the C++ compiler, which is not ours."""
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend=backend))
    counters.clear()
    model, data = classifier(compile=True, architecture_options={"drop_rate": 0.0}), Noise()
    whole: dict[str, Any] = {"max_epochs": 2, "limit_train_batches": 3, "limit_val_batches": 2}  # no short last batch
    run = trainer(**whole)
    run.fit(model, data)
    assert counters["stats"]["unique_graphs"] > 0
    plain = classifier(architecture_options={"drop_rate": 0.0})
    slow = trainer(**whole)
    slow.fit(plain, data)
    for name in ("train/loss", "val/loss"):
        assert run.callback_metrics[name].item() == pytest.approx(slow.callback_metrics[name].item(), abs=1e-4)
    run.save_checkpoint("compiled.ckpt")
    slow.save_checkpoint("plain.ckpt")
    compiled_state = torch.load("compiled.ckpt", weights_only=True)["state_dict"]
    assert compiled_state.keys() == torch.load("plain.ckpt", weights_only=True)["state_dict"].keys()
    plain.load_state_dict(compiled_state, strict=True)
    assert torch.allclose(logits_of(plain, data), logits_of(model, data), atol=1e-5)


def test_validation_alone_does_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier(compile=True)
    monkeypatch.setattr(model.network, "compile", None)
    trainer().validate(model, Noise(), verbose=False)


# checkpoints


def test_hyperparameters_are_plain_data() -> None:
    given: dict[str, Any] = {"optimizer_options": {"eps": 1e-7}, "architecture_options": {"drop_rate": 0.1}, "lr": 0.5}
    run = trainer(limit_train_batches=1, limit_val_batches=0)
    run.fit(classifier(**given), Noise())
    run.save_checkpoint("a.ckpt")
    saved = torch.load("a.ckpt", weights_only=True)["hyper_parameters"]
    assert given.items() <= saved.items()
    model = ImageClassifier.load_from_checkpoint("a.ckpt", weights_only=True)
    assert dict(model.hparams).items() >= given.items()
    assert torch.equal(logits_of(model, Noise()), logits_of(run.lightning_module, Noise()))


def test_averaged_weights() -> None:
    steps: list[Tensor] = []
    data = Noise()

    def weight(model: LightningModule) -> Tensor:
        return next(model.parameters()).detach().clone()

    class Notes(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
            steps.append(weight(pl_module))
            if len(steps) == 4:
                trainer.save_checkpoint("within.ckpt")

    model = classifier(lr=0.01, architecture_options={"drop_rate": 0.0})
    run = trainer(EMAWeightAveraging(decay=0.5), Notes())
    run.fit(model, data)
    average = steps[0]
    for step in steps[1:]:
        average = (average + step) / 2
    saved = torch.load("within.ckpt", weights_only=True)
    name = next(name for name, _ in model.named_parameters())
    assert torch.allclose(saved["state_dict"][name], average, atol=1e-6)
    assert torch.equal(saved["current_model_state"][name], steps[3])
    assert not torch.allclose(average, steps[3], atol=1e-3)
    assert torch.allclose(weight(model), average, atol=1e-6)  # what the training leaves is the average
    loss = F.cross_entropy(logits_of(model, data), data.labels)
    assert run.callback_metrics["val/loss"] == pytest.approx(loss.item(), abs=1e-5)  # and so is what is measured
    loaded = ImageClassifier.load_from_checkpoint("within.ckpt", weights_only=True)
    assert torch.allclose(logits_of(loaded, data), logits_of(model, data), atol=1e-6)

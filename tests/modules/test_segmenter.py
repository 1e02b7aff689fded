"""Segmenter: losses and metrics against plain loops and scikit-learn, ignored pixels, real training, two processes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pytorch_lightning import LightningModule, Trainer, seed_everything
from refusals import refusing
from run_folders import only_run, record
from shapes import NAMES, Shapes, scene
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from trainings import train

import lightning_cnn as lc
from lightning_cnn.cli import main
from lightning_cnn.evaluation.object_sizes import Matches, match_masks
from lightning_cnn.figures.collected import Collected
from lightning_cnn.modules import Segmenter
from lightning_cnn.modules.segmentation_losses import Criterion
from lightning_cnn.modules.segmentation_metrics import PixelMatrix, scores_of, summary
from lightning_cnn.modules.segmenter import mirrored
from lightning_cnn.options import IGNORE

SMALL: dict[str, Any] = {"width": 8, "depth": 3}
QUIET: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
QUIET |= {"accelerator": "cpu", "enable_model_summary": False}
TRAIN = ["train", "--data", "shapes.Shapes", "--data.batch_size", "8", "--data.normalize", "unit"]
TRAIN += ["--model", "Segmenter", "--model.architecture_options", "{width: 8, depth: 3}", "--model.lr", "0.005"]
TRAIN += ["--model.criterion", "cross_entropy+dice", "--wandb", "disabled"]


def segmenter(**options: Any) -> Segmenter:
    given = {"num_classes": 3, "image_size": 64, "architecture_options": SMALL, "lr": 0.005}
    return Segmenter(**{**given, **options})


def answers(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits of four classes for two images, and masks with ignored pixels, in which class 3 does not occur."""
    torch.manual_seed(seed)
    masks = torch.randint(0, 3, (2, 5, 7))
    masks[torch.rand(masks.shape) < 0.3] = IGNORE
    return 2 * torch.randn(2, 4, 5, 7), masks


# losses


def by_loops(logits: Tensor, masks: Tensor, weights: list[float], gamma: float) -> dict[str, float]:
    """Each loss, pixel by pixel in double precision."""
    sums = dict.fromkeys(("cross_entropy", "focal", "weights"), 0.0)
    inside, said, true = np.zeros(4), np.zeros(4), np.zeros(4)
    for image, mask in zip(logits.double().numpy(), masks.numpy(), strict=True):
        for row in range(mask.shape[0]):
            for column in range(mask.shape[1]):
                label = mask[row, column]
                if label == IGNORE:
                    continue
                shares = np.exp(image[:, row, column])
                shares /= shares.sum()
                sums["cross_entropy"] -= weights[label] * np.log(shares[label])
                sums["focal"] -= weights[label] * (1 - shares[label]) ** gamma * np.log(shares[label])
                sums["weights"] += weights[label]
                inside[label] += shares[label]
                said += shares
                true[label] += 1
    occurs = true > 0
    losses = 1 - 2 * inside / (said + true)
    dice = np.average(losses[occurs], weights=np.array(weights)[occurs])
    return {name: sums[name] / sums["weights"] for name in ("cross_entropy", "focal")} | {"dice": dice}


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0, 3.0]])
@pytest.mark.parametrize("gamma", [2.0, 0.5])
def test_losses_against_a_loop(weights: list[float] | None, gamma: float) -> None:
    logits, masks = answers()
    expected = by_loops(logits, masks, weights or [1.0] * 4, gamma)
    of_classes = None if weights is None else torch.tensor(weights)
    for text in ("cross_entropy", "dice", "focal", "cross_entropy+dice", "dice + focal"):
        criterion = Criterion.of(text, gamma)
        wanted = sum(expected[name.strip()] for name in text.split("+"))
        assert float(criterion(logits, masks, of_classes)) == pytest.approx(wanted, rel=1e-5), text
    plain = F.cross_entropy(logits, masks, of_classes, ignore_index=IGNORE)
    assert torch.allclose(Criterion.of("cross_entropy", 2)(logits, masks, of_classes), plain)


def test_ignored_pixels_have_no_gradient_and_no_loss() -> None:
    logits, masks = answers()
    for text in ("cross_entropy", "dice", "focal"):
        criterion = Criterion.of(text, 2.0)
        logits.requires_grad_().grad = None
        criterion(logits, masks).backward()
        assert logits.grad is not None
        gradients = logits.grad.abs().amax(1)
        assert not gradients[masks == IGNORE].any() and (gradients[masks != IGNORE] > 0).all()
        changed = torch.where((masks == IGNORE)[:, None], 50.0, logits.detach())
        assert torch.equal(criterion(changed, masks), criterion(logits, masks).detach())
        logits.grad = None
        nothing = criterion(logits, torch.full_like(masks, IGNORE))
        nothing.backward()
        assert nothing == 0 and logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
def test_sure_answers_have_finite_gradients(gamma: float) -> None:
    """The derivative of a power below 1 is infinite at 0, where a pixel's probability is rounded to 1."""
    _, masks = answers()
    right = 40.0 * F.one_hot(masks.where(masks != IGNORE, 3), 4).movedim(-1, 1).float()
    right[0, :, 0, 0] = torch.tensor([0.3, 0.1, -0.2, 0.0])  # one pixel that is still to be learned
    masks[0, 0, 0] = 1
    logits = right.requires_grad_()
    Criterion.of("focal", gamma)(logits, masks).backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all() and logits.grad[0, :, 0, 0].abs().max() > 1e-3


def test_right_answers_are_free_of_loss() -> None:
    _, masks = answers()
    right = 40.0 * F.one_hot(masks.where(masks != IGNORE, 3), 4).movedim(-1, 1)
    for text in ("cross_entropy", "dice", "focal"):
        assert Criterion.of(text, 2.0)(right, masks) < 1e-5
    assert Criterion.of("dice", 2.0)(-right, masks) > 0.9


# metrics


def measured(logits: Tensor, masks: Tensor, parts: int = 1, **options: Any) -> dict[str, float]:
    """What a Segmenter logs in a test of these answers, in so many batches."""

    class Known(Segmenter):
        def forward(self, images: Tensor) -> Tensor:
            return images

    module = Known("unet_small", num_classes=4, in_channels=1, image_size=16, architecture_options=SMALL, **options)
    loader: Any = DataLoader([*zip(logits, masks, strict=True)], len(masks) // parts)  # type: ignore[arg-type]
    (found,) = Trainer(**QUIET).test(module, loader, verbose=False)
    return {name.removeprefix("test/"): value for name, value in found.items()}


def test_metrics_are_those_of_scikit_learn() -> None:
    torch.manual_seed(1)
    logits, masks = torch.randn(6, 4, 9, 8), torch.randint(0, 3, (6, 9, 8))
    logits[:, 3] -= 1
    logits.scatter_add_(1, masks[:, None], torch.full((6, 1, 9, 8), 1.0))
    masks[torch.rand(masks.shape) < 0.2] = IGNORE
    masks[5] = IGNORE  # an image of which nothing is known
    known = masks.numpy() != IGNORE
    true, said = masks.numpy()[known], logits.argmax(1).numpy()[known]
    assert {*said} == {0, 1, 2, 3}  # one that does not occur is predicted
    present = [0, 1, 2]
    ious = jaccard_score(true, said, labels=present, average=None)
    dices = f1_score(true, said, labels=present, average=None)
    losses = [F.cross_entropy(logits[n : n + 1], masks[n : n + 1], ignore_index=IGNORE).item() for n in range(5)]
    wanted = {
        "loss": np.mean(losses),
        "acc": accuracy_score(true, said),
        "pixel_error": 1 - accuracy_score(true, said),
        "iou": np.mean(ious),
        "dice": np.mean(dices),
        "iou_foreground": np.mean(ious[1:]),
        "dice_foreground": np.mean(dices[1:]),
        **{f"iou_{label}": ious[label] for label in present},
        **{f"dice_{label}": dices[label] for label in present},
    }
    for parts in (1, 2, 6):
        assert measured(logits, masks, parts, has_background=True) == pytest.approx(wanted, abs=1e-6)
    without = {name: value for name, value in wanted.items() if "foreground" not in name}
    assert measured(logits, masks) == pytest.approx(without, abs=1e-6)
    each = (
        jaccard_score(mask[is_known], answer[is_known], labels=present, average="macro", zero_division=0)
        for mask, answer, is_known in zip(masks.numpy()[:5], logits.argmax(1).numpy(), known, strict=False)
    )
    assert abs(np.mean(ious) - np.mean([*each])) > 1e-4  # not the mean over images


def test_a_class_called_foreground_does_not_hide_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, masks = answers()
    monkeypatch.setattr(Segmenter, "names_of", lambda *_: ["background", "foreground", "border", "void"])
    found = measured(logits, masks, has_background=True)
    known = masks.numpy() != IGNORE
    true, said = masks.numpy()[known], logits.argmax(1).numpy()[known]
    for name, score in (("iou", jaccard_score), ("dice", f1_score)):
        each = score(true, said, labels=[0, 1, 2], average=None)
        assert found[f"{name}_foreground"] == pytest.approx(each[1:].mean())
        assert found[f"{name}_foreground_class"] == pytest.approx(each[1])
        assert found[f"{name}_border"] == pytest.approx(each[2])


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_matrix_is_that_of_scikit_learn(deterministic: bool) -> None:
    true, said = torch.randint(0, 4, (3, 20, 30)), torch.randint(0, 4, (3, 20, 30))
    true[:, :5] = IGNORE
    metric = PixelMatrix(4)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        for row in range(3):
            metric.update(said[row : row + 1], true[row : row + 1])
    finally:
        torch.use_deterministic_algorithms(before)
    known = true != IGNORE
    assert np.array_equal(metric.compute(), confusion_matrix(true[known], said[known], labels=range(4)))


def test_the_matrix_by_hand() -> None:
    # 10 background, of which 2 are taken for class 1; 5 of class 1, of which 1 is taken for class 2; none of class 2
    matrix = torch.tensor([[8, 2, 0], [0, 4, 1], [0, 0, 0]])
    scores = scores_of(matrix)
    assert scores["iou"][:2].tolist() == pytest.approx([8 / 10, 4 / 7]) and scores["iou"][2].isnan()
    assert scores["dice"][:2].tolist() == pytest.approx([16 / 18, 8 / 11]) and scores["dice"][2].isnan()
    found = {name: float(value) for name, value in summary(matrix, True).items()}
    means = {"iou": (8 / 10 + 4 / 7) / 2, "dice": (16 / 18 + 8 / 11) / 2}
    assert found == pytest.approx({"acc": 12 / 15, "iou_foreground": 4 / 7, "dice_foreground": 8 / 11, **means})
    large = torch.tensor([[2**40, 1], [0, 2**40]])  # no rounding of single precision
    assert float(1 - summary(large, False)["acc"]) == pytest.approx(1 / (2**41 + 1), rel=1e-3)
    assert all(value.isnan() for value in summary(torch.zeros(3, 3, dtype=torch.int64), True).values())


def test_a_test_without_known_pixels_logs_nothing() -> None:
    assert measured(torch.randn(2, 4, 5, 5), torch.full((2, 5, 5), IGNORE)) == {}


def test_objects_by_size_against_a_loop() -> None:
    """In one batch and in several; the classes in another order, and with ignored pixels."""
    random = np.random.default_rng(0)
    masks, logits = torch.zeros(6, 90, 80, dtype=torch.int64), torch.zeros(6, 4, 90, 80)
    said = torch.zeros_like(masks)
    for image, answer in zip(masks, said, strict=True):
        for label in (1, 2, 2, 3):
            top, left, height, width = random.integers([0, 0, 2, 2], [60, 60, 30, 25])
            image[top : top + height, left : left + width] = label
            moved = int(random.integers(0, 6))
            answer[top + moved : top + moved + height, left : left + width] = label
    answer[:70, 60:70] = 2
    masks[1, :20, 5:40] = IGNORE
    logits.scatter_(1, said[:, None], 1.0)
    wanted: dict[str, float] = {}
    for name, label in (("3", 3), ("2", 2)):
        every = Matches.joined(match_masks(answer, mask, label) for answer, mask in zip(said, masks, strict=True))
        right = int(every.found.sum())
        wanted |= {f"recall_{name}": right / len(every.sizes), f"precision_{name}": right / (right + every.false)}
        for low, high, size in ((0, 8, "0_8"), (8, 16, "8_16"), (16, 32, "16_32"), (32, 64, "32_64"), (64, 1e9, "64")):
            found = [bool(hit) for side, hit in zip(every.sizes, every.found, strict=True) if low <= side < high]
            if found:
                wanted[f"recall_{name}_{size}"] = sum(found) / len(found)
    assert len(wanted) >= 9 and 0 < wanted["recall_2"] < 1 and 0 < wanted["precision_2"] < 1
    for parts in (1, 3, 6):
        tested = measured(logits, masks, parts, object_classes=[3, 2])
        of_objects = {name: value for name, value in tested.items() if name.startswith(("recall", "precision"))}
        assert of_objects == pytest.approx(wanted, abs=1e-6)
    alone = measured(logits, masks, 2, object_classes=[2])
    of_one = {name: value for name, value in wanted.items() if name.split("_")[1] == "2"}
    assert {name: alone[name] for name in alone if name.startswith(("recall", "prec"))} == pytest.approx(of_one)


# training


@pytest.fixture(scope="module")
def trained() -> tuple[Segmenter, Shapes, dict[str, float], dict[str, float]]:
    """A module after some epochs, its data, and its metrics of validation and test."""
    seed_everything(0, verbose=False)
    data, module = Shapes(batch_size=8, normalize="unit"), segmenter(criterion="cross_entropy+dice")
    trainer = Trainer(max_epochs=6, **QUIET)
    trainer.fit(module, data)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    (tested,) = trainer.test(module, data, verbose=False)
    return module, data, logged, dict(tested)


def test_it_learns(trained: tuple[Segmenter, Shapes, dict[str, float], dict[str, float]]) -> None:
    module, data, logged, tested = trained
    true, said = [], []
    for image, mask in zip(*data.load(train=False), strict=True):
        with torch.no_grad():
            found = module.eval()(image[None] / 255)[0].argmax(0)
        assert found.shape == mask.shape
        true.append(mask.flatten())
        said.append(found.flatten())
    masks, predictions = torch.cat(true).numpy(), torch.cat(said).numpy()
    known = masks != IGNORE
    ious = jaccard_score(masks[known], predictions[known], average=None)
    assert [tested[f"test/iou_{name}"] for name in NAMES] == pytest.approx(ious, abs=0.01)  # padded a little otherwise
    assert tested["test/iou"] > 0.8 and min(ious) > 0.6
    # a network that answers the background alone: 0.3
    nothing = jaccard_score(masks[known], 0 * masks[known], average="macro", zero_division=0)
    assert nothing < 0.35
    assert logged["train/acc"] > 0.9 and logged["val/iou"] > 0.8
    assert {f"val/{name}" for name in module.validated} <= logged.keys()
    assert set(module.logged("train")) == {"loss", "acc", "loss_step"}


def test_figures(trained: tuple[Segmenter, Shapes, dict[str, float], dict[str, float]]) -> None:
    """Of images of several sizes; those with the largest loss, the largest first."""
    module, data, *_ = trained
    data.setup("test")
    collected, losses = Collected(module.keep), []
    metrics: Any = module.make_metrics("test")
    for number in range(12):
        batch = data.on_after_batch_transfer(data.dataset("test")[torch.tensor([number])], 0)
        with torch.no_grad():
            rows = module.eval().measure(batch, metrics)
        losses += rows["losses"].tolist()
        collected.add(rows)
    collected.gather()
    figures = dict(module.figures(collected.kept, data, "test"))
    assert list(figures) == ["worst", "sample"]
    titles = [text.get_text() for text in figures["worst"].axes[0].texts]
    worst = sorted(losses, reverse=True)[:6]
    assert titles == [title for loss in worst for title in (f"loss {loss:.3g}", "true", "predicted")]
    (legend,) = figures["worst"].legends
    assert [text.get_text() for text in legend.texts] == [*NAMES[1:], "ignored"]


def test_large_images_are_kept_small() -> None:
    module = segmenter(num_classes=2)
    rows = module.eval().measure(
        (torch.rand(1, 1, 96, 700), torch.zeros(1, 96, 700).long()), module.make_metrics("val")
    )
    assert rows["images"].shape == (1, 1, 32, 234) and rows["masks"].shape == rows["predictions"].shape == (1, 32, 234)
    assert rows["masks"].dtype == torch.uint8


def test_valid_convolutions() -> None:
    """Trained on the middle of the masks; validated on images extended by their mirror images."""
    options = {"width": 4, "drop_rate": 0.0}
    module = Segmenter("unet", num_classes=2, image_size=204, architecture_options=options)
    images, masks = torch.randn(2, 1, 204, 204), torch.full((2, 204, 204), IGNORE)
    masks[:, 92:112, 92:112] = 1
    logits = module.train()(images)
    assert logits.shape == (2, 2, 20, 20)
    loss, sums = module.loss((images, masks))
    assert torch.allclose(loss, F.cross_entropy(logits, torch.ones(2, 20, 20).long())) and 0 <= sums["acc"] <= 2
    assert loss > 0
    module.eval()
    for height, width in ((20, 20), (50, 31), (300, 7)):
        inside = torch.randn(1, 1, height, width)
        whole = np.pad(inside[0, 0].numpy(), ((92, 92 - height % 16 + 20), (92, 92 - width % 16 + 20)), "reflect")
        sides = [module.network.input_side(side) for side in (height, width)]  # type: ignore[operator]
        extended = torch.from_numpy(whole)[None, None, : sides[0], : sides[1]]
        expected = module.network(extended)[..., :height, :width]
        assert torch.allclose(module(inside), expected, atol=1e-5), (height, width)
    assert module(torch.randn(1, 1, 1, 1)).shape == (1, 2, 1, 1)
    assert mirrored(torch.arange(3.0).view(1, 1, 1, 3), 5, [0, 9])[0, 0, 0].tolist() == [
        *(1, 0, 1, 2, 1), *(0, 1, 2), *(1, 0, 1, 2)
    ]  # fmt: skip


# what all tasks do


def test_two_processes_measure_what_one_does() -> None:
    words = [*TRAIN, "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--data.objects", "[square, disc]"]
    assert main(["fit", *words[1:], "--experiment", "one"]) == 0
    ckpt = str(only_run() / "checkpoints" / "best.ckpt")
    one = lc.test(ckpt, trust=["shapes"])
    words = ["test", "--ckpt_path", ckpt, "--trainer.devices", "2", "--trainer.accelerator", "cpu", "--trust", "shapes"]
    both = train(words, ranks=2, environment={"PYTHONPATH": str(Path(__file__).parents[1] / "tools")})
    assert both.codes == [0, 0], both.output
    of_objects = {name for name in one if name.startswith(("test/recall", "test/precision"))}
    assert {"test/recall_square", "test/recall_disc_16_32", "test/precision_disc"} <= of_objects
    for name in ("test/iou", "test/iou_disc", "test/dice_foreground", "test/acc", "test/loss", *of_objects):
        assert f"{one[name]:.4f}" in both.output, (name, both.output)


def test_a_run_that_goes_on_ends_like_an_unbroken_one(capsys: pytest.CaptureFixture[str]) -> None:
    for name, epochs in (("whole", 2), ("halves", 1)):
        assert main([*TRAIN, "--trainer.max_epochs", str(epochs), "--experiment", name]) == 0
    whole, halves = (next(Path("runs", name).iterdir()) for name in ("whole", "halves"))
    run = lc.load_run(halves).resume(trainer={"max_epochs": 2})
    first, second = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for folder in (whole, halves)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    results = [record(folder)["metrics"] for folder in (whole, halves)]
    for name in results[0].keys() - {"train/images_per_s", "train/memory_gib"}:
        assert results[0][name] == results[1][name], name
    best = ["--ckpt_path", str(whole / "checkpoints" / "best.ckpt")]
    for verb, words, telling in (
        ("explain", best, "Segmenter is not a classifier of images"),
        ("features", [*best, "--data", "Digits"], "Segmenter requires masks"),
        ("features", ["--architecture", "lenet5", "--data", "shapes.Shapes"], "Shapes has masks"),
        ("walkforward", TRAIN[1:], "Shapes: a walk-forward needs monthly data"),
    ):
        assert telling in refusing(verb, capsys)(*words)
    config = yaml.safe_load((halves / "config.yaml").read_text())
    assert "has_background" not in config["model"]["init_args"]  # of the data
    module: LightningModule = run.module()
    assert module.hparams["has_background"] is True


@pytest.mark.parametrize(
    ("options", "telling"),
    [
        ({"criterion": "dise"}, "`model.criterion` 'dise': expected one of cross_entropy, dice, focal"),
        ({"criterion": "dice+dice"}, "name each loss once"),
        ({"criterion": ""}, "`model.criterion` ''"),
        ({"class_weights": [1.0]}, "`model.class_weights` has 1 numbers, but there are 3 classes"),
        ({"class_weights": [1.0, -1.0, 1.0]}, "`model.class_weights` -1.0: it must be at least 0"),
        ({"class_weights": [0.0, 0.0, 0.0]}, "`model.class_weights`: at least one must be above 0"),
        ({"focal_gamma": -1.0}, "`model.focal_gamma` -1.0"),
        ({"num_classes": 256}, "256 classes; a segmentation has from 2 to 255"),
        ({"architecture": "lenet5", "architecture_options": {}}, "lenet5 is no segmentation network"),
        ({"transfer": "frozen", "unfreeze_from": "up"}, "`model.unfreeze_from` up requires `model.transfer` staged"),
    ],
)
def test_what_is_refused(options: dict[str, Any], telling: str) -> None:
    with pytest.raises(lc.UserError) as caught:
        segmenter(**options)
    assert telling in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("data", "model"), [("Digits", "Segmenter"), ("shapes.Shapes", "ImageClassifier")])
def test_data_with_other_labels(data: str, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", data, "--model", model]) == 2
    assert "requires" in capsys.readouterr().err


def test_transfer(tmp_path: Path) -> None:
    """Frozen: the decoder and the head learn; staged: then also the last layers of the encoder."""
    import timm

    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "encoder.pth")
    options = {"encoder": "test_resnet"}
    given: dict[str, Any] = {"weights": str(tmp_path / "encoder.pth"), "architecture_options": options}
    images, masks = zip(*(scene(64, 64, seed, channels=3) for seed in range(8)), strict=True)
    batches = [(torch.stack(images) / 255, torch.stack(masks).long())] * 2
    loader: Any = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    for more, moved in (
        ({"transfer": "frozen"}, ("decoder", "head")),
        (
            {"transfer": "staged", "unfreeze_from": "encoder.model.layer4", "unfreeze_epoch": 1},
            ("decoder", "head", "encoder.model.layer4"),
        ),
    ):
        module = segmenter(architecture="smp_unet", in_channels=3, **given, **more)
        before = {name: value.clone() for name, value in module.network.state_dict().items()}
        Trainer(max_epochs=2, **QUIET).fit(module, loader)
        changed = {name for name, value in module.network.state_dict().items() if not torch.equal(value, before[name])}
        assert {next(part for part in moved if name.startswith(part)) for name in changed} == {*moved}
    with pytest.raises(lc.UserError, match=r"freezes layers with random weights"):
        Trainer(max_epochs=1, **QUIET).fit(segmenter(in_channels=3, transfer="frozen"), loader)


def test_the_sanity_check_may_see_no_label(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first validation images have none: there is no loss of them yet."""
    load = Shapes.load

    def sparse(self: Shapes, train: bool) -> Any:
        images, masks = load(self, train)
        for mask in masks[:2] if train else ():
            mask.fill_(IGNORE)
        return images, masks

    monkeypatch.setattr(Shapes, "load", sparse)
    first = ["--data.batch_size", "1", "--data.val_split", "first", "--trainer.limit_train_batches", "4"]
    assert main([*TRAIN, *first, "--trainer.max_epochs", "1"]) == 0
    assert record(only_run())["metrics"]["val/loss"] > 0

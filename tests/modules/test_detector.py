"""Detection of any classes: backbones, crowds, errors, both doors, and export."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import pytest
import timm
import torch
from blocks import SIDE, Blocks
from PIL import Image
from pytorch_lightning import Trainer
from refusals import refusing
from run_folders import only_run, record
from torch import Tensor
from torchvision.ops import batched_nms, nms
from watching import Watcher

import lightning_cnn as lc
from lightning_cnn.architectures.grid_detector import GridDetector
from lightning_cnn.cli import main
from lightning_cnn.config.config import Config
from lightning_cnn.datamodules.images.image_files import ImageFiles
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.errors import UserError
from lightning_cnn.modules.detection_networks import LOSSES, DetectorName, create_detector
from lightning_cnn.modules.detector import Detector, mistakes, targets
from lightning_cnn.modules.fine_tuning import divide, own_parameters

EXAMPLE = Path(__file__).parents[2] / "experiments" / "onnx_predict.py"


TRAIN = ["--data", "blocks.Blocks", "--data.image_size", "64", "--data.batch_size", "4", "--wandb", "disabled"]


# networks


@pytest.mark.parametrize("detector", get_args(DetectorName))
def test_any_backbone(detector: DetectorName) -> None:
    """Also of images of one channel; each part of it learns."""
    torch.manual_seed(0)
    network, scaling = create_detector(detector, 2, 1, SIDE, backbone="test_resnet")
    assert scaling is None
    target = {"boxes": torch.tensor([[8.0, 8, 24, 40]]), "labels": torch.tensor([2])}
    losses = network(list(torch.randn(2, 1, SIDE, SIDE)), [target, target])
    assert {f"loss_{name.removeprefix('loss_')}" for name in losses} == set(LOSSES[detector])
    torch.stack([*losses.values()]).sum().backward()
    without = {name for name, each in network.named_parameters() if each.grad is None}
    assert not without
    for found in network.eval()(list(torch.randn(2, 1, SIDE, SIDE))):
        assert found["boxes"].shape == (len(found["scores"]), 4)


def test_weights_of_a_backbone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = timm.create_model("test_resnet", num_classes=7)
    torch.save(trained.state_dict(), tmp_path / "small.pth")
    given: dict[str, Any] = {"backbone": "test_resnet", "weights": str(tmp_path / "small.pth"), "image_size": SIDE}
    model = Detector("grid", num_classes=2, **given)
    body = model.network.backbone.body.state_dict()  # type: ignore[union-attr, operator]
    assert body and all(torch.equal(value, trained.state_dict()[name]) for name, value in body.items())
    assert model.pretrained_preprocessing is not None
    assert model.pretrained_preprocessing["mean"] == list(trained.default_cfg["mean"])
    # the weights of a whole detector
    torch.save(model.network.state_dict(), tmp_path / "whole.pth")
    again = Detector("grid", num_classes=2, **given | {"weights": str(tmp_path / "whole.pth")})
    assert all(
        torch.equal(value, again.network.state_dict()[name]) for name, value in model.network.state_dict().items()
    )
    with pytest.raises(UserError, match="do not fit resnet10t"):
        Detector("fcos", **given | {"backbone": "resnet10t"})
    # all layers, and one more
    more = {name.replace("layer4.0.", "layer4.1."): value for name, value in trained.state_dict().items()}
    torch.save(trained.state_dict() | more, tmp_path / "deeper.pth")
    with pytest.raises(UserError, match="do not fit test_resnet"):
        Detector("grid", **given | {"weights": str(tmp_path / "deeper.pth")})


def test_old_weights_of_the_grid() -> None:
    """The names and shapes of the parameters that earlier versions saved."""
    state = GridDetector().state_dict()
    assert len(state) == 74 and sum(value.numel() for value in state.values()) == 2_239_738
    assert state["backbone.stages.4.1.0.weight"].shape == (256, 256, 3, 3)
    assert state["backbone.laterals.2.weight"].shape == (128, 256, 1, 1)
    assert state["backbone.smooth.1.running_var"].shape == (128,) and state["head.weight"].shape == (15, 128, 1, 1)


@pytest.mark.parametrize(
    ("options", "telling"),
    [
        ({"backbone": "resnet81"}, "unknown `model.backbone` 'resnet81'; did you mean"),
        ({"backbone": "vit_tiny_patch16_224"}, "vit_tiny_patch16_224"),
        ({"backbone": "lenet5"}, "`model.backbone` lenet5"),
        ({"cell": 5}, "`model.cell` 5: expected 4 or 8"),
        ({"cell": 4, "detector": "ssd"}, "`model.cell` 4 is an option of `model.detector` grid"),
        ({"pretrained": True}, "`model.pretrained` requires a `model.backbone`"),
        ({"detector": "grit"}, "unknown `model.detector` 'grit'; did you mean grid"),
        ({"detector": "fcos", "in_channels": 1}, "add a `model.backbone`"),
    ],
)
def test_what_does_not_fit(options: dict[str, Any], telling: str) -> None:
    with pytest.raises(UserError) as error:
        Detector(**options, image_size=SIDE)
    assert telling in str(error.value) and "\n" not in str(error.value)


# transfer


class FewBlocks(Blocks):
    """Eight of the blocks."""

    def load(self, train: bool) -> tuple[Tensor, Tensor]:
        images, labels = super().load(train)
        return images[:8], labels[:8]


def fit(model: Detector, epochs: int) -> Watcher:
    """Trains on a batch an epoch."""
    watcher = Watcher()
    trainer = Trainer(
        max_epochs=epochs, callbacks=[watcher], logger=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", enable_checkpointing=False, limit_train_batches=1, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(model, FewBlocks(image_size=SIDE, batch_size=4))
    return watcher


@pytest.mark.parametrize("detector", get_args(DetectorName))
def test_what_is_frozen_is_the_body_of_the_backbone(detector: DetectorName) -> None:
    """Of each detector, also on its own backbone."""
    for backbone in (None, "test_resnet"):
        network, _ = create_detector(detector, 2, 3, SIDE, backbone=backbone)
        parts = divide(network, "")
        found = [parameter for part in parts for parameter in own_parameters(*part)]
        assert sorted(map(id, found)) == sorted(map(id, network.parameters())) and not parts.early
        frozen = {id(parameter) for parameter in own_parameters(*parts.later)}
        names = {name.split(".")[1] for name, each in network.named_parameters() if id(each) in frozen}
        assert names == {"body" if backbone else {"grid": "stages", "ssd": "features"}.get(detector, "body")}


@pytest.mark.parametrize("detector", ["grid", "faster_rcnn", "ssd"])
def test_a_frozen_backbone_keeps_its_weights(detector: DetectorName) -> None:
    """All else learns. Staged: the last layers of the backbone begin to learn in their epoch, at their own rate."""
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), "body.pth")
    body, later = "backbone.body.", "backbone.body.layer4"
    options: dict[str, Any] = {"backbone": "test_resnet", "weights": "body.pth", "num_classes": 2, "image_size": SIDE}
    staged: dict[str, Any] = {"transfer": "staged", "unfreeze_from": later, "unfreeze_epoch": 1, "unfreeze_lr": 1e-4}
    model = Detector(detector, **options, **staged)
    learns = {name for name, value in model.network.named_parameters() if not name.startswith(body)}
    watcher = fit(model, epochs=2)
    first, second = watcher.changed
    assert first and not any(name.startswith(body) for name in first)
    kinds = [{tuple(name.split(".")[:2]) for name in names} for names in (first & learns, learns)]
    assert kinds[0] == kinds[1]  # SSD leaves a level without an object as it is
    moved = {name for name in second if name.startswith(body)}
    assert any(name.endswith("weight") for name in moved) and all(name.startswith(later) for name in moved)
    # batch normalization of frozen layers keeps and uses its statistics
    assert "backbone.body.layer4.0.bn1" not in watcher.training[0] and "" in watcher.training[0]
    assert "backbone.body.layer4.0.bn1" in watcher.training[1]
    assert "backbone.body.layer3.0.bn1" not in watcher.training[1]


def test_frozen_stages_of_the_grid() -> None:
    """Without a backbone of timm, from a run on other classes: the boxes are known, and the head is new."""
    torch.manual_seed(0)
    torch.save(Detector("grid", num_classes=5, image_size=SIDE).network.state_dict(), "five.pth")
    options: dict[str, Any] = {"num_classes": 2, "image_size": SIDE}
    model = Detector("grid", **options, weights="five.pth", transfer="frozen")
    known = torch.load("five.pth", weights_only=True)
    own = model.network.state_dict()
    assert {name for name in own if not torch.equal(own[name], known[name])} == {"head.weight", "head.bias"}
    (changed,) = fit(model, epochs=1).changed
    frozen = {name for name in own if name.startswith("backbone.stages.")}
    assert changed == own.keys() - frozen
    with pytest.raises(UserError, match="freezes layers with random weights"):
        fit(Detector("grid", **options, transfer="frozen"), epochs=1)
    with pytest.raises(UserError, match=r"`model.unfreeze_from` 'layer9'.*there are backbone.stages, "):
        Detector("grid", **options, weights="five.pth", transfer="staged", unfreeze_from="layer9")


# crowds and errors


def test_crowds_are_in_no_loss() -> None:
    label = torch.tensor([[[1.0, 8, 8, 24, 40], [-2 - 1, 30, 30, 59, 59], [-1, 0, 0, 0, 0]]])
    (target,) = targets(label)
    assert target["boxes"].tolist() == [[8, 8, 24, 40]] and target["labels"].tolist() == [2]
    torch.manual_seed(0)
    network, images = GridDetector(3), [torch.randn(3, SIDE, SIDE)]
    confidence = torch.zeros(1, 8, 8, requires_grad=True)
    answers = confidence, torch.rand(1, 8, 8, 4).cumsum(-1), torch.zeros(1, 8, 8, 2)
    network.answers = lambda images: answers  # type: ignore[method-assign, assignment]
    network(images, [target])["loss_confidence"].backward()
    assert confidence.grad is not None
    silent = (confidence.grad[0] == 0).nonzero()
    # the cells whose centers, 36 to 52, lie in the crowd
    assert silent.tolist() == [[row, column] for row in range(4, 7) for column in range(4, 7)]


def test_mistakes_by_hand() -> None:
    label = torch.tensor([[0.0, 0, 0, 10, 10], [0, 20, 0, 30, 10], [1, 0, 20, 10, 30], [-2, 40, 40, 60, 60], [-1] * 5])
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [0, 20, 10, 30], [42, 42, 50, 50], [42, 42, 50, 50]])
    found = {"boxes": boxes, "labels": torch.tensor([0, 0, 0, 0, 1]), "chosen": torch.arange(5)}
    # found: one object once, and once more; one as another class; one of the crowd, and one of another class in it
    assert mistakes(found, label) == (2, 3)
    assert mistakes(found | {"chosen": torch.tensor([0])}, label) == (2, 0)
    assert mistakes(found | {"chosen": torch.tensor([], dtype=torch.int64)}, label[3:]) == (0, 0)


# the best epoch


def test_the_best_epoch_is_by_precision_unless_another_metric_is_given() -> None:
    boxes = {"data": "SyntheticBoxes"}
    assert Config.load(boxes)["checkpoint"]["monitor"] == "val/map"
    assert Config.load(boxes, {"model": "Detector"})["checkpoint"]["monitor"] == "val/map"
    assert Config.load({"data": "Digits"})["checkpoint"]["monitor"] == "val/loss"
    given = Config.load(boxes, {"checkpoint": {"monitor": "train/loss"}})
    assert given["checkpoint"]["monitor"] == "train/loss"


# both doors


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best checkpoint of a grid that has learned the blocks."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["--model.lr", "0.003", "--model.schedule", "cosine", "--trainer.max_epochs", "20"]
        assert main(["train", *TRAIN, *words, "--trainer.check_val_every_n_epoch", "20"]) == 0
        run = only_run()
        metrics = record(run)["metrics"]
        assert metrics["test/map50"] > 0.9
        assert {"test/map_red square", "test/map_blue bar"} <= metrics.keys()
        drawn = {path.name for path in (run / "figures").iterdir()}
        assert {"test_precision.png", "val_precision.png", "test_detections.png"} <= drawn
        images, _ = Blocks(image_size=SIDE).load(train=False)
        Path("photos").mkdir()
        for place, image in enumerate(images[:6]):
            photo = Image.fromarray(image.permute(1, 2, 0).numpy())
            side = SIDE * (2 + place % 2)  # larger than the network sees them
            photo.resize((side, side), Image.Resampling.NEAREST).save(f"photos/{place}.png")
    return (folder / run / "checkpoints" / "best.ckpt").resolve()


def true_boxes(count: int) -> list[list[list[float]]]:
    """Of each photo the class and the box, in its pixels."""
    _, labels = Blocks(image_size=SIDE).load(train=False)
    return [
        [[row[0], *((2 + place % 2) * edge for edge in row[1:])] for row in label.tolist() if row[0] >= 0]
        for place, label in enumerate(labels[:count])
    ]


@pytest.mark.parametrize("detector", ["faster_rcnn", "retinanet", "fcos", "ssd"])
def test_boxes_are_not_rounded_in_bfloat16(detector: Any) -> None:
    """Neither in a training, nor where they are measured."""
    torch.manual_seed(0)
    model = Detector(detector, num_classes=2, in_channels=3, image_size=256).eval()
    network: Any = model.network
    for part in (network, getattr(network, "roi_heads", network)):
        if hasattr(part, "score_thresh"):
            part.score_thresh = 0.0
    images = torch.rand(1, 3, 256, 256)
    labels = torch.tensor([[[0.0, 131.3, 140.7, 200.1, 199.9]]])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        boxes = model.network(list(images))[0]["boxes"]
        loss, _ = model.train().loss((images, labels))
    assert len(boxes) > 10 and boxes.dtype == loss.dtype == torch.float32
    large = boxes[boxes > 128]
    assert (large != large.bfloat16().float()).float().mean() > 0.3  # the rest lies on the border of the image


def test_predict_draws_and_writes_coco(trained: Path) -> None:
    photos = str(trained.parents[4] / "photos")
    words = ["predict", "--ckpt_path", str(trained), "--images", photos, "--draw", "drawn", "--coco", "found.json"]
    assert main(words) == 0
    with Path("predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "objects", "score", "boxes"]
    content = json.loads(Path("found.json").read_text())
    assert content["categories"] == [{"id": 1, "name": "red square"}, {"id": 2, "name": "blue bar"}]
    assert [image["file_name"] for image in content["images"]] == [row["file"] for row in rows]
    assert [(image["width"], image["height"]) for image in content["images"]] == [(128, 128), (192, 192)] * 3
    for row, image, true in zip(rows, content["images"], true_boxes(6), strict=True):
        own = [entry for entry in content["annotations"] if entry["image_id"] == image["id"]]
        assert len(own) == len(true) == len(row["boxes"].split()) == int(row["objects"] or 0)
        for kind, left, top, right, bottom in true:
            near = min(
                own, key=lambda entry: sum(abs(a - b) for a, b in zip(entry["bbox"][:2], (left, top), strict=True))
            )
            assert near["category_id"] == kind + 1 and near["score"] >= 0.5
            assert np.abs(np.array(near["bbox"]) - [left, top, right - left, bottom - top]).max() < 8
            assert near["area"] == pytest.approx(near["bbox"][2] * near["bbox"][3]) and near["iscrowd"] == 0
    names = sorted(path.name for path in Path("drawn").iterdir())
    assert names == [f"{place}.png" for place in range(6)]
    for place, true in enumerate(true_boxes(6)):
        before, after = (
            np.asarray(Image.open(Path(each) / f"{place}.png").convert("RGB")) for each in (photos, "drawn")
        )
        assert before.shape == after.shape and (before != after).any() == bool(true)
    # pycocotools reads it
    from pycocotools.coco import COCO

    assert len(COCO("found.json").getAnnIds()) == len(content["annotations"])


@pytest.mark.parametrize(("option", "place"), [("--draw", "taken"), ("--coco", "folder"), ("--output", "folder")])
def test_what_can_not_be_written_ends_before_anything_is_computed(
    option: str, place: str, trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("taken").write_text("a file")
    Path("folder").mkdir()
    monkeypatch.setattr(Trainer, "predict", lambda *_: pytest.fail("it was computed"))
    photos = str(trained.parents[4] / "photos")
    assert main(["predict", "--ckpt_path", str(trained), "--images", photos, option, place]) == 2
    assert f"can't write {place}" in (told := capsys.readouterr().err) and f"{option}" in told
    assert not [*Path("folder").iterdir()] and not Path("predictions.csv").exists()


def test_photos_of_one_name_are_all_drawn(trained: Path) -> None:
    photo = trained.parents[4] / "photos" / "0.png"
    places = [Path(name) for name in ("a/img.png", "a/img_2.png", "b/img.png")]
    for place in places:
        place.parent.mkdir(exist_ok=True)
        shutil.copy(photo, place)
    lc.predict(trained, images=[*map(str, places)], draw="drawn")
    assert {path.name for path in Path("drawn").iterdir()} == {"img.png", "img_2.png", "img_3.png"}


def test_what_was_drawn_is_not_searched(trained: Path) -> None:
    shutil.copytree(trained.parents[4] / "photos", "photos")
    words = ["predict", "--ckpt_path", str(trained), "--images", "photos", "--draw", "photos/boxes"]
    for _ in range(2):
        assert main(words) == 0
        assert len(Path("predictions.csv").read_text().splitlines()) == 7
        assert len([*Path("photos/boxes").iterdir()]) == 6
    # what is named is searched, and so is a folder within the one that is written into
    for images, draw, count in (("photos/boxes/0.png", "photos/boxes", 1), ("photos", ".", 6 + 6)):
        assert main([*words[:3], "--images", images, "--draw", draw]) == 0
        assert len(Path("predictions.csv").read_text().splitlines()) == 1 + count


def test_predict_from_python(trained: Path) -> None:
    images, labels = Blocks(image_size=SIDE).load(train=False)
    arrays = [image.permute(1, 2, 0).numpy() for image in images[:3]]
    frame = lc.load_run(trained.parents[1]).predict(arrays, coco="here/found.json", draw="here/drawn")
    counts = (labels[:3, :, 0] >= 0).sum(1).tolist()
    assert [len(text.split()) for text in frame["boxes"]] == counts
    content = json.loads(Path("here/found.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["image 0", "image 1", "image 2"]
    assert sorted(path.name for path in Path("here/drawn").iterdir()) == ["image_0.png", "image_1.png", "image_2.png"]


def test_boxes_of_a_classifier_are_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", "Digits", "--model.architecture", "linear", "--trainer.max_epochs", "1",
                 "--wandb", "disabled"]) == 0  # fmt: skip
    capsys.readouterr()
    best = str(only_run() / "checkpoints" / "best.ckpt")
    photos = str(trained.parents[4] / "photos")
    assert main(["predict", "--ckpt_path", best, "--images", photos, "--coco", "found.json"]) == 2
    assert "--coco requires a detector, but the checkpoint is of ImageClassifier" in capsys.readouterr().err
    assert not Path("found.json").exists() and not Path("predictions.csv").exists()


def test_verbs_that_know_no_boxes_refuse_them(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = str(trained.parents[4] / "photos" / "0.png")
    boxes, from_run = ["--data", "blocks.Blocks"], ["--ckpt_path", str(trained), "--trust", "blocks"]
    for verb, words, telling in (
        ("explain", [*from_run, photo], "Detector is not a classifier of images"),
        ("explain", from_run, "Detector is not a classifier of images"),
        ("features", [*from_run, "--data", "Digits"], "Detector requires boxes"),
        ("features", ["--architecture", "lenet5", *boxes], "Blocks has boxes"),
        ("walkforward", [*boxes, "--wandb", "disabled"], "Blocks: a walk-forward needs monthly data"),
        ("benchmark", ["faster_rcnn"], "unknown architecture 'faster_rcnn'"),
    ):
        assert telling in refusing(verb, capsys)(*words)
    words = ["filters", *from_run, "--image", photo, "--output", "maps.png"]
    assert main(words) == 0 and "maps of each, written to maps.png" in capsys.readouterr().out


# export


def run_example(model: str, *photos: str) -> list[str]:
    command = [sys.executable, str(EXAMPLE), model, *photos]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_the_onnx_file_gives_the_boxes_of_predict(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = sorted(map(str, (trained.parents[4] / "photos").iterdir()))
    assert main(["export", "--ckpt_path", str(trained), "--output", "blocks.onnx"]) == 0
    assert "to boxes, for any n" in capsys.readouterr().out
    session = onnxruntime.InferenceSession("blocks.onnx")
    assert [output.name for output in session.get_outputs()] == ["boxes"]
    (found,) = session.run(None, {"images": np.zeros((3, 3, SIDE, SIDE), np.float32)})
    assert found.shape == (3, 64, 4 + 2)
    assert main(["predict", "--ckpt_path", str(trained), "--images", *photos]) == 0
    with Path("predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    lines = [line.split("  ") for line in run_example("blocks.onnx", *photos)]
    assert [line[0] for line in lines] == [row["file"] for row in rows]
    assert [line[-1] if row["boxes"] else "" for line, row in zip(lines, rows, strict=True)] == [
        r["boxes"] for r in rows
    ]
    assert [line[1] for line in lines] == [row["objects"] or "nothing" for row in rows]


@pytest.mark.parametrize("side", [64, 72])
@pytest.mark.parametrize("detector", ["grid", "retinanet", "fcos", "ssd"])
def test_the_decoding_is_that_of_the_detector(detector: DetectorName, side: int) -> None:
    """Random weights with many confident boxes; by the functions of the example, from the exported outputs."""
    import runpy

    torch.manual_seed(0)
    model = Detector(detector, num_classes=3, image_size=side, min_score=0.06).eval()
    for name, parameter in model.network.named_parameters():  # else no score is above the threshold
        if name == "head.bias" or "cls_logits.bias" in name:
            torch.nn.init.normal_(parameter, 0, 0.5)
            if name != "head.bias":  # the background, which these never find once they are trained
                parameter.data.view(-1, 4)[:, 0] = -20
        elif "cls_logits.weight" in name or name == "head.weight":
            torch.nn.init.normal_(parameter, 0, 0.02)
    network, told = model.exported()
    how = json.loads(told["detector"])
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        found, outputs = model(images), network(images)
    example = runpy.run_path(str(EXAMPLE))
    assert sum(len(each["chosen"]) for each in found) > 20
    for each, rows in zip(found, outputs.numpy(), strict=True):
        boxes, labels, scores = example["find_objects"](rows, how)
        chosen = each["chosen"]
        theirs = [
            *zip(
                each["scores"][chosen].tolist(),
                each["labels"][chosen].tolist(),
                each["boxes"][chosen].tolist(),
                strict=True,
            )
        ]
        for score, label, box in zip(scores.tolist(), labels.tolist(), boxes.tolist(), strict=True):
            same = [
                place
                for place, (right_score, right_label, right_box) in enumerate(theirs)  # equal scores in any order
                if label == right_label
                and score == pytest.approx(right_score, abs=2e-4)
                and box == pytest.approx(right_box, abs=0.05)
            ]
            assert same, (score, label, box)
            del theirs[same[0]]
        assert not theirs


def test_suppression_is_that_of_torchvision() -> None:
    import runpy

    suppress = runpy.run_path(str(EXAMPLE))["suppress"]
    draw = np.random.default_rng(1)
    corner, size = draw.uniform(0, 40, (300, 2)), draw.uniform(4, 30, (300, 2))
    boxes = np.concatenate([corner, corner + size], 1).astype(np.float32)
    labels, scores = draw.integers(0, 3, 300), np.sort(draw.random(300).astype(np.float32))[::-1].copy()
    tensors = torch.from_numpy(boxes), torch.from_numpy(scores)
    assert suppress(boxes, labels, 0.5).tolist() == batched_nms(*tensors, torch.from_numpy(labels), 0.5).tolist()
    assert suppress(boxes, np.zeros(300, int), 0.3).tolist() == nms(*tensors, 0.3).tolist()


def test_a_detector_of_two_stages_is_not_exported() -> None:
    model = Detector("faster_rcnn", num_classes=2, image_size=SIDE)
    with pytest.raises(UserError, match=r"FasterRCNN chooses its proposals .* within the network") as error:
        model.exported()
    assert "\n" not in str(error.value)


def test_names_of_classes_in_the_table() -> None:
    Image.new("L", (100, 50)).save("photo.png")
    photos = ImageFiles(["photo.png"], Preprocessing(SIDE, 3, resize="pad", class_names=("a b", "c:d")))
    found: dict[str, Any] = {"boxes": torch.tensor([[16.0, 22.4, 32, 41.6], [0, 0, 9, 9]])}
    found |= {"labels": torch.tensor([1, 0]), "scores": torch.tensor([0.75, 0.25]), "chosen": torch.tensor([0])}
    header, rows = Detector(image_size=SIDE, num_classes=2).prediction_table([[found]], photos)
    assert header == ["objects", "score", "boxes"] and rows == [["1", 0.75, "c_d:25:10:50:40:0.750"]]

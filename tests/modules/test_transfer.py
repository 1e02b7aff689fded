"""Pre-trained weights and what learns of them: frozen features, staged fine-tuning, full fine-tuning."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from pytorch_lightning import Trainer
from small_data import write_cifar10_folder, write_image_folder
from torch import nn
from watching import Watcher, check_processes_agree

import lightning_cnn as lc
from lightning_cnn.cli import main
from lightning_cnn.datamodules import ImageFolder
from lightning_cnn.errors import UserError
from lightning_cnn.modules import CapsuleClassifier, ImageClassifier
from lightning_cnn.modules.fine_tuning import divide, own_parameters
from lightning_cnn.modules.pretrained import imagenet_names
from lightning_cnn.resume.checkpoint_file import preprocessing_of

QUIET = ["--wandb", "disabled", "--trainer.enable_model_summary", "false"]


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of weights of a ResNet-10 with 1,000 classes, as timm saves them."""
    torch.manual_seed(1)
    network = timm.create_model("resnet10t")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics that no batch of digits has
            nn.init.uniform_(module.get_buffer("running_mean"), -0.1, 0.1)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 1.5)
    path = tmp_path_factory.mktemp("weights") / "resnet10t.pth"
    torch.save(network.state_dict(), path)
    return str(path)


def fit(tmp_path: Path, weights: str | None, epochs: int = 2, ckpt: str | None = None, **options: Any) -> Watcher:
    """Trains on two batches of coloured digits an epoch."""
    if not (tmp_path / "own").exists():
        write_image_folder(tmp_path / "own", classes=3, count=12)
    torch.manual_seed(0)
    data = ImageFolder(str(tmp_path / "own"), image_size=32, batch_size=12)
    architecture = options.pop("architecture", "resnet10t")
    model = ImageClassifier(
        architecture, num_classes=3, in_channels=3, image_size=32, weights=weights, lr=0.01, **options
    )
    watcher = Watcher()
    trainer = Trainer(
        max_epochs=epochs, callbacks=[watcher], logger=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", default_root_dir=tmp_path, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(model, data, ckpt_path=ckpt, weights_only=True)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    return watcher


def test_frozen_layers_keep_values_and_statistics(tmp_path: Path, resnet_file: str) -> None:
    watcher = fit(tmp_path, resnet_file, transfer="frozen")
    assert watcher.changed == [{"fc.weight", "fc.bias"}] * 2
    # batch normalisation in evaluation mode uses the statistics that it came with
    assert watcher.training == [{"", "fc"}] * 2


def test_full_fine_tuning_changes_all(tmp_path: Path, resnet_file: str) -> None:
    watcher = fit(tmp_path, resnet_file, epochs=1)
    assert watcher.changed[0] == set(watcher.before)


def test_layers_thaw_at_their_epoch(tmp_path: Path, resnet_file: str) -> None:
    options: dict[str, Any] = {"transfer": "staged", "unfreeze_from": "layer4", "unfreeze_epoch": 2}
    watcher = fit(tmp_path, resnet_file, epochs=4, **options)
    later = {name for name in watcher.before if name.startswith(("layer4", "fc"))}
    assert watcher.changed == [{"fc.weight", "fc.bias"}] * 2 + [later] * 2
    assert not any(name.startswith("layer4") for name in watcher.training[1])
    assert "layer4.0.bn1" in watcher.training[2] and "layer3.0.bn1" not in watcher.training[2]


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_thaws_as_if_nothing_had_happened(tmp_path: Path, resnet_file: str, stop: int) -> None:
    options: dict[str, Any] = {"transfer": "staged", "unfreeze_from": "layer4", "unfreeze_epoch": 2}
    fit(tmp_path, resnet_file, epochs=stop, **options)
    first = torch.load(tmp_path / "end.ckpt", weights_only=True)
    watcher = fit(tmp_path, None, epochs=4, ckpt=str(tmp_path / "end.ckpt"), **options)
    later = {name for name in watcher.before if name.startswith(("layer4", "fc"))}
    assert watcher.changed == ([{"fc.weight", "fc.bias"}] * 2 + [later] * 2)[stop:]
    last = torch.load(tmp_path / "end.ckpt", weights_only=True)
    rates = [[group["lr"] for group in content["optimizer_states"][0]["param_groups"]] for content in (first, last)]
    assert rates[0] == rates[1]


def test_thawed_layers_have_their_own_learning_rate(tmp_path: Path, resnet_file: str) -> None:
    model = ImageClassifier(
        "resnet10t",
        num_classes=3,
        in_channels=3,
        image_size=32,
        weights=resnet_file,
        transfer="staged",
        lr=0.02,
        weight_decay=0.1,
    )
    groups = model.make_optimizer(model.hparams).param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [
        (0.02, 0.1), (0.02, 0.0), (0.002, 0.1), (0.002, 0.0)
    ]  # fmt: skip
    assert sum(len(group["params"]) for group in groups) == len([*model.network.parameters()])
    model = ImageClassifier(
        "resnet10t",
        num_classes=3,
        in_channels=3,
        image_size=32,
        transfer="staged",
        unfreeze_from="layer3",
        unfreeze_lr=1e-5,
    )
    assert {group["lr"] for group in model.make_optimizer(model.hparams).param_groups} == {1e-3, 1e-5}
    # also under a schedule: the ratio stays
    fit(tmp_path, resnet_file, epochs=3, transfer="staged", unfreeze_epoch=1, schedule="step", decay_epochs=1)
    state = torch.load(tmp_path / "end.ckpt", weights_only=True)["optimizer_states"][0]
    assert state["param_groups"][0]["lr"] < 0.002
    assert {round(group["lr"] / state["param_groups"][0]["lr"], 6) for group in state["param_groups"]} == {1, 0.1}


@pytest.mark.parametrize("name", ["resnet10t", "vgg11", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_a_network_is_divided_without_rest(name: str) -> None:
    with torch.device("meta"):
        network = timm.create_model(name)
    names = [child for child, _ in network.named_children()]
    parts = divide(network, names[len(names) // 2])
    assert [len(part) > 0 for part in parts] == [True] * 3
    found = [parameter for part in parts for parameter in own_parameters(*part)]
    assert sorted(map(id, found)) == sorted(map(id, network.parameters()))
    head = {id(parameter) for parameter in network.get_classifier().parameters()}
    assert {id(parameter) for parameter in own_parameters(*parts.head)} == head


def test_processes_share_the_gradients_of_thawed_layers(tmp_path: Path) -> None:
    """DDP leaves out what was frozen when it was set up: the processes would drift apart without a word."""
    torch.save(timm.create_model("lenet5", in_chans=1, img_size=28).state_dict(), tmp_path / "start.pth")
    options: dict[str, Any] = {"transfer": "staged", "unfreeze_epoch": 1, "unfreeze_lr": 0.01, "optimizer": "momentum"}
    options |= {"num_classes": 10, "in_channels": 1, "image_size": 28, "weights": str(tmp_path / "start.pth")}
    check_processes_agree(lambda: ImageClassifier("lenet5", lr=0.01, **options), tmp_path)


# weights


def test_scaling_comes_from_the_pretrained_configuration(tmp_path: Path, resnet_file: str) -> None:
    root = str(write_image_folder(tmp_path / "own", classes=3, count=12))
    words = ["fit", "--data", "ImageFolder", "--data.root", root, "--data.image_size", "32", *QUIET]
    words += ["--model.architecture", "resnet10t", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]
    config = timm.get_pretrained_cfg("resnet10t")
    means = {}
    for name, more in (
        ("weights", ["--model.weights", resnet_file]),
        ("none", []),
        ("typed", ["--model.weights", resnet_file, "--data.normalize", "unit"]),
    ):
        assert main([*words, *more, "--experiment", name]) == 0
        (path,) = Path("runs", name).glob("*/checkpoints/best.ckpt")
        content = torch.load(path, weights_only=True)
        (state,) = [v for v in content.values() if isinstance(v, dict) and "preprocessing" in v]
        means[name] = state["preprocessing"]["mean"]
    assert means["weights"] == list(config.mean)
    assert means["none"] != means["weights"] and set(means["typed"]) == {0.0}


def test_head_is_kept_only_for_the_same_number_of_classes(resnet_file: str) -> None:
    state = torch.load(resnet_file, weights_only=True)
    same = ImageClassifier(
        "resnet10t", num_classes=1000, in_channels=3, image_size=32, weights=resnet_file
    ).network.state_dict()
    assert all(torch.equal(state[name], same[name]) for name in state)
    other = ImageClassifier(
        "resnet10t", num_classes=7, in_channels=3, image_size=32, weights=resnet_file
    ).network.state_dict()
    assert other["fc.weight"].shape == (7, 512)
    assert all(torch.equal(state[name], other[name]) for name in state if not name.startswith("fc."))
    grey = ImageClassifier("resnet10t", num_classes=7, in_channels=1, image_size=32, weights=resnet_file)
    first = grey.network.state_dict()["conv1.0.weight"]
    assert torch.allclose(first, state["conv1.0.weight"].sum(1, keepdim=True), atol=1e-6)
    assert grey.pretrained_preprocessing is not None and len(grey.pretrained_preprocessing["mean"]) == 1


@pytest.mark.parametrize("name", ["capsnet_small", "efficient_capsnet", "googlenet", "lenet5"])
def test_heads_of_ours_are_kept_or_replaced(tmp_path: Path, name: str) -> None:
    """A head may have a form of its own, and there may be several."""
    shape = {"in_chans": 1, "img_size": 32}
    options: dict[str, Any] = {"in_channels": 1, "image_size": 32, "weights": str(tmp_path / "w.pth")}
    task = CapsuleClassifier if "caps" in name else ImageClassifier
    torch.manual_seed(3)
    first = timm.create_model(name, num_classes=4, **shape).state_dict()
    torch.save(first, tmp_path / "w.pth")
    for classes in (4, 3):
        torch.manual_seed(4)
        fresh = timm.create_model(name, num_classes=classes, **shape).state_dict()
        torch.manual_seed(4)
        found = task(name, num_classes=classes, **options).network.state_dict()
        assert found.keys() == fresh.keys()
        for key, value in found.items():
            if fresh[key].shape == first[key].shape and not (classes == 3 and key.startswith("head")):
                assert torch.equal(value, first[key]), key
            else:
                assert value.shape == fresh[key].shape and classes == 3, key
    if name == "googlenet":
        without = ImageClassifier(name, num_classes=4, architecture_options={"auxiliary": False}, **options)
        assert all(torch.equal(value, first[key]) for key, value in without.network.state_dict().items())


def test_weights_of_an_earlier_run(tmp_path: Path) -> None:
    """A checkpoint of ours is a file of weights like any other, and brings its scaling along."""
    words = ["fit", "--data", "Digits", *QUIET, "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "4"]
    assert main([*words, "--experiment", "first"]) == 0
    (best,) = Path("runs/first").glob("*/checkpoints/best.ckpt")
    root = str(write_image_folder(tmp_path / "own", classes=3, count=12))
    second = ["fit", "--data", "ImageFolder", "--data.root", root, "--data.image_size", "28", "--data.color", "grey"]
    second += ["--model.weights", str(best), "--model.transfer", "frozen", "--trainer.max_epochs", "1", *QUIET]
    assert main([*second, "--experiment", "second"]) == 0
    (last,) = Path("runs/second").glob("*/checkpoints/last.ckpt")
    one, other = (torch.load(path, weights_only=True)["state_dict"] for path in (best, last))
    assert other["network.head.weight"].shape[0] == 3
    features = [name for name in one if name.startswith("network.features")]
    assert features and all(torch.equal(one[name], other[name]) for name in features)
    # the first run may be deleted: testing and resuming don't look for its weights
    best.unlink()
    assert main(["test", "--ckpt_path", str(last)]) == 0
    assert main(["fit", "--resume", last.parents[1].name, "--trainer.max_epochs", "2"]) == 0
    assert json.loads((last.parents[1] / "run.json").read_text())["epochs"] == 2


def test_images_of_another_run_are_scaled_one_by_one_where_it_did_so(tmp_path: Path) -> None:
    """Its weights know no other images; a run that goes on from there does the same."""
    root = str(write_image_folder(tmp_path / "own", classes=3, count=12))
    words = ["fit", "--data", "ImageFolder", "--data.root", root, "--data.image_size", "32", *QUIET]
    words += ["--model.architecture", "cnn3", "--trainer.max_epochs", "1"]
    assert main([*words, "--data.normalize", "per_image", "--experiment", "first"]) == 0
    (best,) = Path("runs/first").glob("*/checkpoints/best.ckpt")
    assert main([*words, "--model.weights", str(best), "--experiment", "second"]) == 0
    (last,) = Path("runs/second").glob("*/checkpoints/last.ckpt")
    assert main(["fit", "--resume", last.parents[1].name, "--trainer.max_epochs", "2"]) == 0
    run = lc.load_run(last.parents[1])
    data: Any = run.datamodule()
    data.setup("test")
    images, _ = data.dataset("test")[torch.arange(4)]
    scaled = data.preprocessing.scale(images.float() / 255).flatten(1)
    assert torch.allclose(scaled.mean(1), torch.zeros(4), atol=1e-4)
    assert torch.allclose(scaled.std(1), torch.ones(4), atol=1e-2)


def test_colors_of_an_earlier_run_become_gray(tmp_path: Path) -> None:
    root = str(write_image_folder(tmp_path / "own", classes=3, count=12))
    words = ["fit", "--data", "ImageFolder", "--data.root", root, "--data.image_size", "32", *QUIET]
    words += ["--model.architecture", "resnet10t", "--trainer.max_epochs", "1"]
    assert main([*words, "--experiment", "colors"]) == 0
    (best,) = Path("runs/colors").glob("*/checkpoints/best.ckpt")
    grey = ["--data.color", "grey", "--model.weights", str(best), "--experiment", "grey"]
    assert main([*words, *grey]) == 0
    (content,) = (torch.load(path, weights_only=True) for path in Path("runs/grey").glob("*/checkpoints/best.ckpt"))
    of_colors = preprocessing_of(torch.load(best, weights_only=True))
    of_grey = preprocessing_of(content)
    assert of_colors is not None and of_grey is not None
    for name in ("mean", "std"):
        assert of_grey[name] == pytest.approx([sum(of_colors[name]) / 3])


def message(**options: Any) -> str:
    with pytest.raises(UserError) as caught:
        ImageClassifier(num_classes=3, in_channels=3, image_size=32, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("other", ["resnet18", "resnet10t_wider", "densenet121", "mobilenetv3_small_050"])
def test_weights_of_another_architecture(tmp_path: Path, resnet_file: str, other: str) -> None:
    """timm would load what fits, leave the rest at random, and say nothing."""
    if other == "resnet10t_wider":  # what fits by name but not by shape
        state = {name: torch.cat([value, value]) for name, value in torch.load(resnet_file).items() if value.ndim}
        torch.save(state, tmp_path / "wide.pth")
        text = message(architecture="resnet10t", weights=str(tmp_path / "wide.pth"))
    else:
        text = message(architecture=other, weights=resnet_file)
    assert "do not fit" in text and "use a file for this network" in text


def test_too_many_layers_in_the_file(tmp_path: Path) -> None:
    """ResNet-34 holds all names and shapes of ResNet-18, and more."""
    torch.save(timm.create_model("resnet34").state_dict(), tmp_path / "34.pth")
    assert "do not fit resnet18" in message(architecture="resnet18", weights=str(tmp_path / "34.pth"))


def test_files_that_are_no_weights(tmp_path: Path, resnet_file: str) -> None:
    assert "there is no file of weights nowhere.pth" in message(architecture="resnet10t", weights="nowhere.pth")
    (tmp_path / "cut.pth").write_bytes(Path(resnet_file).read_bytes()[:5000])
    assert "cut.pth is truncated or not a file of weights" in message(architecture="resnet10t", weights="cut.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    assert "holds no named weights" in message(architecture="resnet10t", weights="list.pth")
    torch.save({"weights": print}, tmp_path / "code.pth")
    assert "code.pth contains pickled code (" in message(architecture="resnet10t", weights="code.pth")


def test_a_layer_that_is_not_there() -> None:
    options = {"architecture": "resnet10t", "transfer": "staged"}
    assert "'layer5': the network has no such layer; did you mean layer" in message(unfreeze_from="layer5", **options)
    assert "there are conv1" in message(unfreeze_from="xyz", **options)
    assert "requires `model.transfer` staged" in message(architecture="resnet10t", unfreeze_from="layer4")


# real weights


@pytest.fixture(scope="module")
def real_weights(shared_data: Path) -> list[str]:
    return ["tf_efficientnet_lite0", str(shared_data / "weights" / "tf_efficientnet_lite0.pth")]


def test_imagenet_photos(shared_data: Path, real_weights: list[str]) -> None:
    """18 of 20 is what the weights can; a wrong scaling, crop or class order can't."""
    words = ["--architecture", real_weights[0], "--weights", real_weights[1], "--images", str(shared_data / "photos")]
    assert main(["predict", *words]) == 0
    names = imagenet_names()
    assert len(set(names)) == 1000
    with open("predictions.csv") as file:
        right = [row["class"] == names[int(Path(row["file"]).stem[12:])] for row in csv.DictReader(file)]
    assert len(right) == 20 and sum(right) >= 17


def test_which_model(capsys: pytest.CaptureFixture[str], real_weights: list[str]) -> None:
    Path("x.png").touch()
    assert main(["predict", "--images", "x.png"]) == 2
    assert "which model?" in capsys.readouterr().err
    assert main(["predict", "--images", "x.png", "--architecture", "resnet18", "--weights", real_weights[1]]) == 2
    assert "do not fit resnet18" in capsys.readouterr().err
    assert main(["predict", "--images", "x.png", "--ckpt_path", "a.ckpt", "--weights", "b.pth"]) == 2
    assert "has its own weights: remove it" in capsys.readouterr().err
    assert main(["predict", "--images", "x.png", "--architecture", "resnett18"]) == 2
    assert "resnet18" in capsys.readouterr().err


def test_a_few_real_images_are_enough_for_a_pretrained_network(
    shared_data: Path, real_weights: list[str], tmp_path: Path
) -> None:
    """200 images of CIFAR-10, enlarged: training from scratch stays near chance, frozen ImageNet features don't."""
    write_cifar10_folder(tmp_path / "cifar")
    words = ["train", "--data", "ImageFolder", "--data.root", str(tmp_path / "cifar"), "--data.image_size", "64"]
    words += ["--data.batch_size", "20", "--model.architecture", real_weights[0], "--model.lr", "0.001", *QUIET]
    accuracy = {}
    frozen = ["--model.weights", real_weights[1], "--model.transfer", "frozen", "--trainer.max_epochs", "6"]
    for name, more in (("frozen", frozen), ("scratch", ["--trainer.max_epochs", "1"])):
        assert main([*words, "--experiment", name, *more]) == 0
        (record,) = Path("runs", name).glob("*/run.json")
        accuracy[name] = json.loads(record.read_text())["metrics"]["test/acc"]
    assert accuracy["frozen"] > 0.35 > accuracy["scratch"] + 0.15

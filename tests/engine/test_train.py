"""The main job, end to end: every experiment, every verb, resume, several processes."""

import csv
import json
import signal
from pathlib import Path

import pytest
import timm
import torch
import trainings
import yaml
from image_sets import write_boxes
from mask_sets import write_camvid, write_folder, write_membrane
from price_files import panel, write
from run_folders import record, runs_in_order
from small_data import write_cifar10, write_image_folder, write_mnist
from svhn_files import write_numbers, write_svhn
from trainings import Outcome

from lightning_cnn.cli import main
from lightning_cnn.resume.run_lock import RUN_FOLDER

PROJECT = Path(__file__).parents[2]
NO_EXPERIMENTS = ("kubernetes", "sweeps")
EXPERIMENTS = [path for path in sorted(PROJECT.glob("experiments/*/*.yaml")) if path.parent.name not in NO_EXPERIMENTS]
QUICK = ["--trainer.limit_train_batches", "6", "--wandb", "disabled"]
# one for each kind of data with each task, and for each mechanism; the others make one step of each stage
WHOLE = {
    *(
        "cifar10_bottleneck",
        "camvid_unet_lite0",
        "cifar10_fast",
        "cifar10_googlenet",
        "fashion_mnist_lenet5",
        "image_folder_staged",
    ),
    *("mnist_lenet5_1998", "overlapping_digits_capsnet_small", "returns_book", "returns_picture"),
    *("returns_regression", "svhn_boxes_grid", "svhn_lenet5", "svhn_numbers", "synthetic_boxes_faster_rcnn"),
    *("synthetic_numbers_corrected", "synthetic_returns"),
}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)[
        "state_dict"
    ]
    return state


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.figures] * (path.stem in WHOLE), id=path.stem) for path in EXPERIMENTS],
)
def test_every_experiment_trains(path: Path, tmp_path: Path) -> None:
    """For real, on small data in the true format of its data set."""
    assert {path.stem for path in EXPERIMENTS} > WHOLE
    config = yaml.safe_load(path.read_text())
    data, model = config["data"]["class_path"], config["model"]
    words = ["--trainer.check_val_every_n_epoch", "1", "--trainer.limit_train_batches", "2", "--model.compile", "false"]
    if "batch_size" in config["data"].get("init_args", {}):
        words += ["--data.batch_size", "2" if path.parent.name == "segmentation" else "4"]
    if path.parent.name == "segmentation":  # the crops of the valid convolutions can't be smaller
        words += ["--data.image_size", "188" if model["architecture"] == "unet" else "32"]
    if data in ("MNIST", "FashionMNIST", "AffineMNIST", "OverlappingDigits"):
        files = "FashionMNIST" if data == "FashionMNIST" else "MNIST"
        write_mnist(tmp_path / "data", files, train=50, test=10)
    elif data == "CIFAR10":
        write_cifar10(tmp_path / "data", train=50, test=10)
        words += ["--data.check_md5", "false"]
    elif data == "ImageFolder":
        write_image_folder(tmp_path / "data", count=4)
    elif data == "DetectionFolder":
        write_boxes(tmp_path / "data")
    elif data == "SegmentationFolder":
        write_folder(tmp_path / "data")
    elif data == "CamVid":
        write_camvid(tmp_path / "data")
    elif data == "Membrane":
        write_membrane(tmp_path / "data", 9)
    elif data == "SVHN":
        write_svhn(tmp_path / "data")
        words += ["--data.check_md5", "false"]
    elif data in ("SVHNNumbers", "SVHNBoxes"):
        write_numbers(tmp_path / "data")
    elif data == "SyntheticReturns":
        words += ["--data.stocks", "30", "--data.months", "60"]
    elif data == "MonthlyReturns":
        words += ["--data.prices", str(write(panel(12, "2007-01", "2017-12"), tmp_path / "prices.parquet"))]
    elif data in ("SyntheticNumbers", "SyntheticBoxes"):
        write_mnist(tmp_path / "data", "MNIST", train=300, test=100)
        words += ["--data.train_images", "20", "--data.test_images", "4"]
    elif data in ("SyntheticShips", "SyntheticShipBoxes"):
        words += ["--data.train_images", "20", "--data.test_images", "4"]
    if model.get("pretrained"):  # the weights that timm would download are as random as those of a new network
        name = model.get("architecture_options", {}).get("encoder", model["architecture"])
        torch.save(timm.create_model(name).state_dict(), tmp_path / "weights.pth")
        words += ["--model.weights", str(tmp_path / "weights.pth")]
    if path.stem not in WHOLE:
        assert main(["train", "--config", str(path), "--trainer.fast_dev_run", "1", *QUICK, *words]) == 0
        return
    assert main(["train", "--config", str(path), "--trainer.max_epochs", "1", *QUICK, *words]) == 0
    (folder,) = runs_in_order()
    assert folder.parent.name == path.stem
    saved = record(folder)
    assert saved["status"] == "finished"
    assert 0 <= saved["metrics"]["test/acc"] <= 1
    assert saved["best"]["metric"] == config.get("checkpoint", {}).get("monitor", "val/loss")


def test_words_in_any_order() -> None:
    """What is typed beats the file, also in front of it."""
    words = ["--data.batch_size", "64", "--model.architecture", "ffnn", "--config", "digits_lenet5", "--data", "Digits"]
    assert main(["fit", *words, "--trainer.max_epochs", "1", *QUICK]) == 0
    (folder,) = runs_in_order()
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    assert settings["data"]["init_args"]["batch_size"] == 64
    assert settings["model"]["init_args"]["architecture"] == "ffnn"


@pytest.mark.figures
def test_the_first_run_reaches_its_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    """The README's first command: 97 % is out of reach for a broken network."""
    assert main(["train", "--config", "digits_lenet5", "--wandb", "offline"]) == 0
    (folder,) = runs_in_order()
    saved = record(folder)
    assert saved["metrics"]["test/acc"] >= 0.97
    printed = capsys.readouterr()
    assert str(folder) in printed.out
    assert "test" in printed.out and "acc" in printed.out
    assert "Epoch 0: 100%" in printed.err
    for name in ("config.yaml", "metrics.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        assert (folder / name).is_file()
    parts = [f"{stage}_{name}" for stage in ("val", "test") for name in ("confusion", "worst", "predictions")]
    for name in ("examples", "curves", *parts):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 5_000


def test_every_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A user's first half hour."""
    root = write_image_folder(tmp_path / "own", classes=3, count=12)
    common = ["--data", "ImageFolder", "--data.root", str(root), "--data.image_size", "28", "--data.color", "grey"]
    quiet = ["--wandb", "disabled", "--trainer.enable_model_summary", "false"]
    assert main(["fit", *common, *quiet, "--data.batch_size", "8", "--trainer.max_epochs", "8"]) == 0
    (folder,) = runs_in_order()
    assert "test/acc" not in record(folder)["metrics"]
    best = str(folder / "checkpoints" / "best.ckpt")
    capsys.readouterr()

    assert main(["validate", "--ckpt_path", best]) == 0
    validated = dict(line.split() for line in capsys.readouterr().out.splitlines()[1:])
    at_best = [row for row in rows(folder) if row["val/loss"] and int(row["epoch"]) == record(folder)["best"]["epoch"]]
    assert float(validated["loss"]) == pytest.approx(float(at_best[0]["val/loss"]), abs=6e-5)

    assert main(["test", "--ckpt_path", best]) == 0
    *table, recorded = capsys.readouterr().out.splitlines()[1:]
    tested = dict(line.split() for line in table)
    assert float(tested["acc"]) > 0.8
    assert recorded == f"recorded in {folder}"
    assert record(folder)["metrics"]["test/acc"] == pytest.approx(float(tested["acc"]), abs=6e-5)
    assert (folder / "figures" / "test_predictions.png").is_file()
    before = (folder / "run.json").read_text()
    assert main(["test", "--ckpt_path", best, "--data.normalize", "raw"]) == 0  # another question: only printed
    assert main(["test", "--ckpt_path", best.replace("best", "last")]) == 0
    assert (folder / "run.json").read_text() == before
    capsys.readouterr()

    # from another folder, with the data gone: the checkpoint carries the preprocessing
    (tmp_path / "own").rename(tmp_path / "moved")
    assert main(["predict", "--ckpt_path", best, "--images", str(tmp_path / "moved" / "test"), "--top_k", "2"]) == 0
    with open("predictions.csv") as file:
        predicted = list(csv.DictReader(file))
    assert list(predicted[0]) == ["file", "class", "probability", "class_2", "probability_2"]
    right = [Path(row["file"]).parent.name == row["class"] for row in predicted]
    assert sum(right) / len(right) == pytest.approx(float(tested["acc"]), abs=1e-4)
    assert all(float(row["probability"]) >= float(row["probability_2"]) for row in predicted)

    assert main(["list"]) == 0
    assert main(["compare"]) == 0
    assert folder.name in capsys.readouterr().out
    assert len(runs_in_order()) == 1


def test_predict_sees_what_training_saw(tmp_path: Path) -> None:
    """The probabilities of `predict` equal those of the model on the data module's own batches, bit for bit."""
    from lightning_cnn.config.checkpoint import read_checkpoint
    from lightning_cnn.datamodules import ImageFolder
    from lightning_cnn.engine.loading import load_model

    root = write_image_folder(tmp_path / "own")
    options = ["--data.image_size", "36", "--data.padding", "3", "--data.resize", "pad", "--data.color", "grey"]
    words = ["fit", "--data", "ImageFolder", "--data.root", str(root), *options, "--trainer.max_epochs", "1", *QUICK]
    assert main(words) == 0
    (folder,) = runs_in_order()
    best = folder / "checkpoints" / "best.ckpt"
    assert main(["predict", "--ckpt_path", str(best), "--images", str(root / "test"), "--top_k", "3"]) == 0
    model, preprocessing = load_model(read_checkpoint(best))
    data = ImageFolder(str(root), image_size=36, padding=3, resize="pad", color="grey")
    data.setup("test")
    data.load_state_dict({"preprocessing": preprocessing.to_dict()})
    images, _ = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    with torch.no_grad():
        expected = model.eval()(images).softmax(1)
    with open("predictions.csv") as file:
        for row, values in zip(csv.DictReader(file), expected, strict=True):
            assert float(row["probability"]) == pytest.approx(float(values.max()), abs=2e-6)
            assert row["class"] == data.class_names[int(values.argmax())]


def test_the_same_seed_gives_the_same_weights() -> None:
    words = ["fit", "--data", "Digits", "--data.augment.shift", "0.1", "--trainer.max_epochs", "1", *QUICK]
    for seed in ("1", "1", "2"):
        assert main([*words, "--seed_everything", seed]) == 0
    one, again, other = (weights(folder) for folder in runs_in_order())
    assert equal(one, again)
    assert not equal(one, other)


def test_resume_continues_the_run() -> None:
    """Two epochs at once, and one epoch resumed for a second, end alike: same folder, same weights, same rows."""
    words = ["fit", "--data", "Digits", "--data.augment.shift", "0.1", "--model.architecture", "ffnn", *QUICK]
    words += ["--model.architecture_options", '{"drop_rate": 0}']
    assert main([*words, "--trainer.max_epochs", "2", "--experiment", "whole"]) == 0
    assert main([*words, "--trainer.max_epochs", "1", "--experiment", "parts"]) == 0
    whole, parts = runs_in_order()
    tested = record(parts) | {"metrics": {"test/acc": 0.5}}
    (parts / "run.json").write_text(json.dumps(tested))
    assert main(["fit", "--resume", f"parts/{parts.name}", "--trainer.max_epochs", "2"]) == 0
    assert "test/acc" not in record(parts)["metrics"]
    assert runs_in_order() == [whole, parts]
    assert equal(weights(parts), weights(whole))
    assert record(parts)["status"] == "finished"
    assert record(parts)["epochs"] == 2
    assert record(parts)["best"] == record(whole)["best"]
    trained = [row for row in rows(parts) if row["train/loss"]]
    assert [row["train/loss"] for row in trained] == [row["train/loss"] for row in rows(whole) if row["train/loss"]]
    assert yaml.safe_load((parts / "config.yaml").read_text())["trainer"]["max_epochs"] == 2
    best = str(parts / "checkpoints" / "best.ckpt")  # from a file that is not the run's last
    assert main(["fit", "--resume", f"parts/{parts.name}", "--ckpt_path", best, "--trainer.max_epochs", "3"]) == 0
    assert record(parts)["status"] == "finished" and record(parts)["epochs"] == 3
    assert [row["epoch"] for row in rows(parts) if row["train/loss"]] == ["0", "1", "2"]


def test_resume_refuses_a_finished_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--data", "Digits", "--trainer.max_epochs", "1", *QUICK]) == 0
    (folder,) = runs_in_order()
    before = record(folder)
    assert main(["train", "--resume", str(folder)]) == 2
    assert "--trainer.max_epochs 2" in capsys.readouterr().err
    assert record(folder) == before


def struck(signum: signal.Signals, folder: Path) -> Outcome:
    """A long training that gets a signal when its first checkpoint is there."""
    words = ["fit", "--data", "Digits", "--wandb", "disabled", "--trainer.max_epochs", "500", "--data.batch_size", "8"]
    last = folder / "checkpoints" / "last.ckpt"
    return trainings.train(words, signum=signum, after=last, environment={RUN_FOLDER: str(folder)})


@pytest.mark.parametrize(
    "callback",
    [
        ["EarlyStopping", "--trainer.callbacks.monitor", "val/loss", "--trainer.callbacks.min_delta", "100",
         "--trainer.callbacks.patience", "1"],
        ["EMAWeightAveraging", "--trainer.callbacks.decay", "0.9"],
        ["LearningRateFinder", "--trainer.callbacks.num_training_steps", "20"],
        ["BatchSizeFinder", "--trainer.callbacks.max_trials", "2", "--trainer.callbacks.steps_per_trial", "1"],
        ["ThroughputMonitor", "--trainer.callbacks.batch_size_fn", "lightning_cnn.tracking.throughput.count_images"],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_callbacks_of_lightning_by_name(callback: list[str]) -> None:
    words = ["train", "--data", "Digits", "--model.architecture", "linear", "--trainer.max_epochs", "3", *QUICK]
    assert main([*words, f"--trainer.callbacks+={callback[0]}", *callback[1:]]) == 0
    (folder,) = runs_in_order()
    saved = record(folder)
    assert saved["status"] == "finished"
    if callback[0] == "EarlyStopping":
        assert saved["epochs"] == 2
    if callback[0] == "EMAWeightAveraging":
        checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert not equal(checkpoint["state_dict"], checkpoint["current_model_state"])


@pytest.mark.ci
@pytest.mark.parametrize(
    "words",
    [
        *(["--data", "Digits", f"--trainer.callbacks+={name}"] for name in ("BatchSizeFinder", "LearningRateFinder")),
        *(["--data", "Digits", *words] for words in (["--trainer.callbacks+=FiniteLoss"], ["--model=ImageClassifier"])),
        *(["--data", name] for name in ("SyntheticReturns", "SVHN")),
    ],
    ids=lambda words: words[-1],
)
def test_classes_of_ours_are_found_in_a_fresh_process(words: list[str]) -> None:
    """By their short names, in a process that has imported no more than what each training begins with."""
    done = trainings.train(["fit", *words, "--print_config"])
    assert done.codes == [0] and "class_path: lightning_cnn." in done.output, done.output


def test_what_is_typed_beats_the_checkpoint() -> None:
    """Lightning trains with the checkpoint's learning rate although another is typed."""
    assert main(["fit", "--data", "Digits", "--model.lr", "0.001", "--trainer.max_epochs", "1", *QUICK]) == 0
    (folder,) = runs_in_order()
    last = str(folder / "checkpoints" / "last.ckpt")
    words = ["fit", "--ckpt_path", last, "--model.lr", "0.5", "--trainer.max_epochs", "2", "--experiment", "second"]
    assert main([*words, *QUICK]) == 0
    second = runs_in_order()[-1]
    checkpoint = torch.load(second / "checkpoints" / "last.ckpt", weights_only=True)
    assert {group["lr"] for group in checkpoint["optimizer_states"][0]["param_groups"]} == {0.5}
    assert checkpoint["hyper_parameters"]["lr"] == 0.5
    # what is not typed comes from the checkpoint
    assert yaml.safe_load((second / "config.yaml").read_text())["data"]["class_path"].endswith("Digits")


def test_another_network_than_the_checkpoint_holds(capsys: pytest.CaptureFixture[str]) -> None:
    """Lightning builds the checkpoint's network although another is typed."""
    assert main(["fit", "--data", "Digits", "--trainer.max_epochs", "1", *QUICK]) == 0
    (folder,) = runs_in_order()
    best = str(folder / "checkpoints" / "best.ckpt")
    for verb in ("fit", "test", "validate"):
        assert main([verb, "--ckpt_path", best, "--model.architecture", "ffnn"]) == 2
        error = capsys.readouterr().err
        assert "lenet5" in error and "ffnn" in error
    assert runs_in_order() == [folder]


@pytest.mark.parametrize("typed", [["--model.num_classes", "5"], ["--model.image_size=32"], ["yaml"]])
def test_a_value_for_what_is_set_from_the_data(
    typed: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Lightning accepts and replaces it."""
    if typed == ["yaml"]:
        (tmp_path / "facts.yaml").write_text("data: Digits\nmodel:\n  in_channels: 3\n")
        typed = ["--config", "facts.yaml"]
    assert main(["train", "--data", "Digits", *typed]) == 2
    assert "is set from the data" in capsys.readouterr().err
    assert runs_in_order() == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_stopped_run_is_interrupted(number: signal.Signals, code: int, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "digits" / "stopped"
    stopped = struck(number, folder)
    assert stopped.codes == [code] and "Traceback" not in stopped.output, stopped.output
    assert record(folder)["status"] == "interrupted"
    loops = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["loops"]["fit_loop"]
    assert record(folder)["epochs"] == loops["epoch_progress"]["current"]["processed"] >= 1


@pytest.mark.parametrize(("typed", "steps"), [("1", 1), ("1.0", 9), ("0.5", 4)])
def test_one_batch_is_not_all_batches(typed: str, steps: int, tmp_path: Path) -> None:
    """To jsonargparse 1 and 1.0 are the same, to Lightning one batch and all batches."""
    words = ["fit", "--data", "Digits", "--model.architecture", "linear", "--trainer.max_epochs", "1"]
    words += ["--wandb", "disabled"]
    assert main([*words, "--trainer.limit_train_batches", typed]) == 0
    (tmp_path / "limited.yaml").write_text(f"trainer:\n  limit_train_batches: {typed}\n")
    assert main([*words, "--config", "limited.yaml"]) == 0
    for folder in runs_in_order():
        assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == steps


def test_a_moved_run_keeps_its_best(tmp_path: Path) -> None:
    words = ["fit", "--data", "Digits", "--trainer.max_epochs", "2", *QUICK]
    assert main(words) == 0
    (folder,) = runs_in_order()
    best = record(folder)["best"]
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "runs").rename(tmp_path / "elsewhere" / "runs")
    # an epoch that is surely worse: the learning rate wrecks the network
    again = ["fit", "--runs_dir", str(moved), "--resume", folder.name, "--trainer.max_epochs", "3", "--model.lr", "10"]
    assert main(again) == 0
    (folder,) = runs_in_order(moved)
    assert record(folder)["epochs"] == 3
    assert record(folder)["best"] == best
    assert torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["epoch"] == best["epoch"]


def test_the_configuration_of_a_run_from_a_checkpoint_repeats_it() -> None:
    assert main(["fit", "--data", "Digits", "--trainer.max_epochs", "1", *QUICK]) == 0
    (folder,) = runs_in_order()
    last = str(folder / "checkpoints" / "last.ckpt")
    words = ["fit", "--ckpt_path", last, "--trainer.max_epochs", "2", "--experiment", "second", *QUICK]
    assert main(words) == 0
    (second,) = Path("runs/second").iterdir()
    assert main(["fit", "--config", str(second / "config.yaml"), "--experiment", "third"]) == 0
    (third,) = Path("runs/third").iterdir()
    assert equal(weights(second), weights(third))


@pytest.mark.parametrize("words", [["--trainer.check_val_every_n_epoch", "2"], ["--trainer.max_steps", "4"]])
def test_an_epoch_without_validation_is_kept(words: list[str]) -> None:
    quiet = ["--wandb", "disabled", "--trainer.enable_progress_bar", "false", "--model.architecture", "linear"]
    assert main(["train", "--data", "Digits", "--trainer.max_epochs", "3", *words, *quiet]) == 0
    (folder,) = runs_in_order()
    assert record(folder)["status"] == "finished"
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    assert main(["test", "--ckpt_path", str(folder / "checkpoints" / "last.ckpt"), *quiet[2:4]]) == 0


def test_a_typed_scaling_beats_the_checkpoint() -> None:
    from lightning_cnn.datamodules import Digits

    checkpoint = {"preprocessing": Digits().preprocessing.to_dict() | {"mean": [0.3], "std": [0.2]}}
    for normalize, mean in (("standardize", (0.3,)), ("unit", (0.0,))):
        data = Digits(normalize=normalize)  # type: ignore[arg-type]
        data.load_state_dict(checkpoint)
        assert data.preprocessing.mean == mean

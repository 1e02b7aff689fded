"""Compares the learning rate that LearningRateFinder finds with the best of a grid of rates, by test accuracy.

    uv run experiments/benchmarks/lr_finder.py --root data --images cifar10

Three networks learn Digits, a part of MNIST and a part of CIFAR-10 for a few epochs, with each rate and with the one
found. `--root` is the data folder with MNIST; `--images` is a folder of CIFAR-10 images, `train/` and `test/`, of which
6,000 and 2,000 are enough. Prints a line for each training and then the table.
"""

import argparse
import json

import torch

from lightning_cnn.cli.words import read_words
from lightning_cnn.config.schema import TRAIN
from lightning_cnn.engine.build import Experiment
from lightning_cnn.engine.finding import find_settings
from lightning_cnn.resume.step_seed import StepSeed

QUIET = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
ADAMW, SGD = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2), (3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
NETWORKS = {
    "lenet5": (["--model.optimizer", "adamw"], ADAMW),
    "cnn3": (["--model.optimizer", "adamw"], ADAMW),
    "resnet20_cifar": (["--model.optimizer", "sgd", "--model.weight_decay", "1e-4"], SGD),
}
FINDER = ["--trainer.callbacks+=LearningRateFinder"]


def data_words(root: str, images: str) -> dict[str, list[str]]:
    """The words that choose each data set, and how long to train on it."""
    mnist = ["--data", "MNIST", "--data.root", root, "--data.batch_size", "64", "--trainer.max_epochs", "3"]
    folder = ["--data", "ImageFolder", "--data.root", images, "--data.image_size", "32", "--data.batch_size", "64"]
    return {
        "Digits": ["--data", "Digits", "--data.batch_size", "32", "--trainer.max_epochs", "10"],
        "MNIST": [*mnist, "--trainer.limit_train_batches", "60", "--trainer.limit_test_batches", "48"],
        "CIFAR-10": [*folder, "--data.num_workers", "0", "--trainer.max_epochs", "4"],
    }


def accuracy(words: list[str]) -> tuple[float, float]:
    """Trains; returns the test accuracy of the last weights, and the learning rate."""
    experiment = Experiment(read_words(TRAIN, words).config())
    experiment.data.prepare_data()
    experiment = find_settings(experiment, None).experiment
    trainer = experiment.trainer(callbacks=[StepSeed(42)], limit_val_batches=0, **dict.fromkeys(QUIET, False))
    trainer.fit(experiment.model, experiment.data)
    (metrics,) = trainer.test(experiment.model, experiment.data, verbose=False)
    return metrics["test/acc"], experiment.config["model"]["init_args"]["lr"]


def run(root: str, images: str) -> None:
    """Trains all, and prints the table."""
    rows = []
    for data, chosen in data_words(root, images).items():
        for network, (optimizer, rates) in NETWORKS.items():
            words = [*chosen, "--model.architecture", network, *optimizer, "--model.schedule", "cosine"]
            if network == "resnet20_cifar":
                words += ["--data.image_size", "16", *(["--trainer.max_epochs", "5"] if data == "CIFAR-10" else [])]
            grid = {rate: accuracy([*words, "--model.lr", str(rate)])[0] for rate in rates}
            found, rate = accuracy([*words, *FINDER])
            best = max(grid, key=grid.__getitem__)
            print(json.dumps({"data": data, "network": network, "grid": grid, "found": rate, "acc": found}), flush=True)
            rows.append(f"{data:9} {network:15} {best:<8g} {grid[best]:.4f}  {rate:<8g} {found:.4f}")
    print("data      network         best of the grid  found", *rows, sep="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="Data folder with MNIST.")
    parser.add_argument("--images", default="data/cifar10", help="Folder of CIFAR-10 images.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    run(given.root, given.images)

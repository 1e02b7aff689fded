"""Trains on a folder of images with rare classes: as it is, with weights of the classes, and with balanced batches.

    uv run experiments/benchmarks/imbalance.py

The folder holds real handwritten digits: 100 training images of each even digit, and 5 of each odd one; for the test 50
of each. No checkpoint is selected; the weights are those of the last epoch.
"""

import argparse
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from PIL import Image
from sklearn.datasets import load_digits

import lightning_cnn as lc

TEST, OFTEN, RARE = 50, 100, 5  # images of each class
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as it is": ({}, {}),
    "class_weights balanced": ({}, {"class_weights": "balanced"}),
    "sampler balanced": ({"sampler": "balanced"}, {}),
}


def write_digits(root: Path) -> None:
    """Writes the digits as `<part>/<digit>/<number>.png`."""
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 8, 8) / 16 * 255).astype(np.uint8)
    for label in range(10):
        own = images[labels == label]
        parts = {"test": own[:TEST], "train": own[TEST : TEST + (RARE if label % 2 else OFTEN)]}
        for part, chosen in parts.items():
            (root / part / str(label)).mkdir(parents=True)
            for number, image in enumerate(chosen):
                Image.fromarray(image).save(root / part / str(label) / f"{number:03d}.png")


def measured(root: Path, way: str, seed: int, epochs: int) -> list[float]:
    """Accuracy, macro F1, and mean accuracy of the frequent and of the rare classes on the test images."""
    of_data, of_model = WAYS[way]
    pl.seed_everything(seed, verbose=False)
    data = lc.datamodules.ImageFolder(str(root), color="grey", image_size=28, batch_size=32, **of_data)
    model = lc.modules.ImageClassifier("lenet5", num_classes=10, in_channels=1, image_size=28, **of_model)
    silent: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        max_epochs=epochs, limit_val_batches=0, accelerator="cpu", enable_model_summary=False, **silent
    )
    trainer.fit(model, data)
    (found,) = trainer.test(model, data, verbose=False)
    often, rare = (np.mean([found[f"test/acc_{label}"] for label in range(first, 10, 2)]) for first in (0, 1))
    return [found["test/acc"], found["test/f1"], float(often), float(rare)]


def main() -> None:
    """Prints mean and standard deviation over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of each training")
    options = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        write_digits(Path(folder))
        print(f"{'':22}  {'acc':12}  {'f1':12}  {'often':12}  {'rare':12}")
        for way in WAYS:
            rows = np.array([measured(Path(folder), way, seed, options.epochs) for seed in range(options.seeds)])
            cells = zip(rows.mean(0), rows.std(0, ddof=1), strict=True)
            print(f"{way:22}", *(f"{mean:.3f} ± {std:.3f}" for mean, std in cells), sep="  ", flush=True)


if __name__ == "__main__":
    main()

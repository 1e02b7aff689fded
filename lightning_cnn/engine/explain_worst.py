"""A page with the test images that a checkpoint is most wrong about, and what its answers rest on."""

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_cnn.config.config import Config
from lightning_cnn.datamodules.batches import image_name
from lightning_cnn.engine.attribution import Explainer, Settings, class_number
from lightning_cnn.engine.build import Experiment
from lightning_cnn.engine.figure_file import HINT
from lightning_cnn.engine.trainer import SILENT
from lightning_cnn.engine.user_errors import user_errors
from lightning_cnn.errors import UserError
from lightning_cnn.figures.attribution import overlay, png
from lightning_cnn.figures.collected import IMAGES, Collected, Worst
from lightning_cnn.figures.page import page
from lightning_cnn.modules.image_task import names_in
from lightning_cnn.plain_text import escaped
from lightning_cnn.resume.files import make_folder, replace_text

if TYPE_CHECKING:
    from pandas import DataFrame

COLUMNS = ("losses", "predictions", "labels")


class KeepWorst(Callback):
    """Keeps the test images with the largest loss, and their positions.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self.collected = Collected({"worst": Worst(count, by="losses")})
        self.seen = 0

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Looks at a batch."""
        positions = torch.arange(self.seen, self.seen + len(batch[0]), device=batch[0].device)
        self.seen += len(positions)
        rows = {name: outputs[name] for name in COLUMNS}
        self.collected.add({**rows, "positions": positions, IMAGES: batch[0]})


def write_worst(
    config: Config, settings: Settings, target: str | int | None, output: Path, count: int, device: torch.device
) -> tuple["DataFrame", NDArray[np.float32], str, Path]:
    """Tests a checkpoint, and writes the page.

    Args:
        config: That of a test, with the checkpoint.
        settings: How answers are explained.
        target: The class to explain; None for the predicted class, beside it the true one.
        output: The page.
        count: Number of images.
        device: What to compute the maps on.

    Returns:
        The images, the worst first, with their maps, the layer, and the page.

    Raises:
        UserError: If the data have no test part, or the model can't be explained.
    """
    from pandas import DataFrame, Series

    experiment = Experiment(config)
    data = experiment.data
    if "test" not in getattr(data, "stages", ("test",)):
        raise UserError("the data has no test part: add images to explain")
    Explainer(experiment.model, settings, torch.device("cpu"))  # refuses before anything is read
    names = tuple(experiment.model.names_of(data))
    number = None if target is None else class_number(target, names)
    experiment.prepare("test")
    keeper = KeepWorst(count)
    machine = {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    machine |= {"accelerator": "cpu"} if device.type == "cpu" else {}
    trainer = experiment.trainer(**SILENT, **machine, callbacks=[keeper])
    with user_errors():
        trainer.test(experiment.model, data, ckpt_path=str(config["ckpt_path"]), weights_only=True, verbose=False)
    kept = {name: values.cpu().clone() for name, values in keeper.collected.kept["worst"].items()}
    images = kept[IMAGES]
    explainer = Explainer(experiment.model, settings, device)
    chances = explainer.probabilities(images)
    guesses, targets = _targets(chances, kept["labels"], number)
    maps = {title: explainer.maps(images, classes) for title, classes in targets.items()}
    labels, said = (_words(kept[name], names) for name in ("labels", "predictions"))
    main = next(iter(targets.values()))
    frame = DataFrame(
        {
            "file": Series([_name(data, place) for place in kept["positions"].tolist()], dtype=object),
            "label": labels,
            "class": said,
            "probability": chances.gather(1, guesses[:, None])[:, 0].numpy(),
            "target": [names[place] for place in main.tolist()],
            "loss": kept["losses"].numpy(),
        }
    )
    shown = data.preprocessing.unscale(images)
    pictures = {"image": shown} | {title: overlay(shown, found) for title, found in maps.items()}
    captions = {title: [f"{title} {names[place]}" for place in classes.tolist()] for title, classes in targets.items()}
    cards = [
        {
            "heading": f"{row.label}, taken for {said[place]}" if labels[place] != said[place] else row.label,
            "text": f"{escaped(str(row.file))}: confidence {row.probability:.1%}, loss {row.loss:.3g}",
            "pictures": [
                (captions[title][place] if title in captions else title, _inline(found[place]))
                for title, found in pictures.items()
            ],
        }
        for place, row in enumerate(frame.itertuples())
    ]
    make_folder(output.parent, HINT)
    replace_text(output, page("worst.html", *_heading(config, explainer, len(cards), keeper.seen), cards=cards), HINT)
    return frame, next(iter(maps.values())).numpy(), explainer.layer, output


def _targets(chances: Tensor, labels: Tensor, number: int | None) -> tuple[Tensor, dict[str, Tensor]]:
    """The class whose probability is shown, and those that are explained, by what they are."""
    guesses = chances.argmax(1)
    if number is not None:
        return guesses, {"for": torch.full_like(guesses, number)}
    if labels.ndim == 1:
        return guesses, {"for the prediction": guesses, "for the label": labels}
    wrong = (chances - labels).abs().argmax(1)
    return wrong, {"for the most wrong label": wrong}


def _words(values: Tensor, names: tuple[str, ...]) -> list[str]:
    """Classes, or several labels of each image, in words."""
    return [names[value] for value in values.tolist()] if values.ndim == 1 else [names_in(row, names) for row in values]


def _name(data: Any, position: int) -> str:
    try:
        return image_name(data.dataset("test"), position)
    except AttributeError:  # a data set of a user's own
        return str(position)


def _inline(image: Tensor) -> str:
    return base64.b64encode(png(image)).decode()


def _heading(config: Config, explainer: Explainer, count: int, total: int) -> tuple[str, str]:
    folder = Path(str(config["ckpt_path"])).absolute().parent.parent
    method = explainer.settings.method.replace("_", " ")
    layer = f", layer {explainer.layer}" if explainer.layer else ""
    return (
        f"{folder.parent.name}/{folder.name}: the worst test images",
        f"The {count} of {total:,} test images with the largest loss. Maps: {method}{layer}; orange speaks for the "
        "class, blue against it, and each map has a scale of its own.",
    )

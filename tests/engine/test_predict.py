"""`predict` of images in memory: the same numbers, to the digit, as of a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal
from PIL import Image

from lightning_cnn.cli import main
from lightning_cnn.datamodules.images.preprocessing import Preprocessing
from lightning_cnn.engine.predict import predict
from lightning_cnn.engine.source import checkpoint_of
from lightning_cnn.errors import UserError
from lightning_cnn.modules import ImageClassifier
from lightning_cnn.tracking.run import RunFolder

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 40, 30, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with the checkpoint of an untrained network for colors."""
    folder = RunFolder.create(tmp_path_factory.mktemp("runs"), "made", "", seed=0)
    folder.finish("finished")
    (folder.folder / "checkpoints").mkdir()
    torch.manual_seed(0)
    model = ImageClassifier("cnn3", in_channels=3, image_size=32)
    content = {
        "pytorch-lightning_version": "2.6.6",
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "Data": {"preprocessing": Preprocessing(32, 3, mean=(0.5,) * 3, std=(0.2,) * 3).to_dict()},
    }
    torch.save(content, folder.checkpoint("last"))
    return folder


@pytest.fixture(scope="module")
def expected(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Of files."""
    files = [tmp_path_factory.mktemp("photos") / f"{number}.png" for number in range(3)]
    for file, pixels in zip(files, PIXELS, strict=True):
        Image.fromarray(pixels).save(file)
    frame = predict(run, images=files)
    assert frame.file.tolist() == [str(file) for file in files]
    assert_frame_equal(predict(run.folder, images=files[1]), frame[1:2].reset_index(drop=True))  # a batch of one
    return frame


TENSOR = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    "images",
    [
        [Image.fromarray(pixels) for pixels in PIXELS],
        [*PIXELS],
        PIXELS,
        PIXELS / 255,
        (PIXELS / 255).astype(np.float32),
        TENSOR,
        TENSOR / 255,
        [PIXELS[0], Image.fromarray(PIXELS[1]), TENSOR[2]],
        [np.concatenate([pixels, pixels[..., :1]], -1) for pixels in PIXELS],  # an alpha channel is ignored
    ],
    ids=["pil", "arrays", "array", "float", "float32", "tensor", "float_tensor", "mixed", "alpha"],
)
def test_an_image_in_memory_is_as_good_as_its_file(images: Any, run: RunFolder, expected: pd.DataFrame) -> None:
    found = predict(run, images=images)
    assert found.file.tolist() == ["image 0", "image 1", "image 2"]
    assert found.drop(columns="file").equals(expected.drop(columns="file"))
    one = predict(str(checkpoint_of(run)), images=images[0])
    assert_frame_equal(one, found[:1])


def test_gray_images_in_memory(run: RunFolder) -> None:
    gray = PIXELS[0, ..., 0]
    found = predict(run, images=[gray, gray[..., None], Image.fromarray(gray), gray / 255, torch.from_numpy(gray)])
    assert len(found) == 5 and len(found.drop(columns="file").drop_duplicates()) == 1
    assert predict(run, images=gray).shape == (1, found.shape[1])


def test_an_image_of_pillow_is_turned_as_its_file_is(run: RunFolder, tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(PIXELS[0]).save(tmp_path / "turned.png", exif=turned)
    with Image.open(tmp_path / "turned.png") as image:
        found = predict(run, images=[tmp_path / "turned.png", image])
    assert found.probability[0] == found.probability[1]


@pytest.mark.parametrize(
    ("images", "telling"),
    [
        ([PIXELS[0], PIXELS[0].astype(int)], "`images` [1]: an array of shape (40, 30, 3) and type int64"),
        ([PIXELS[0] / 1.0], "expected (h, w) or (h, w, 3)"),
        ([PIXELS[0] > 3], "type bool"),
        ([np.full((4, 4), np.nan)], "floats from 0 to 1"),
        (PIXELS[..., 0], "`images` [0]: an array of shape (3, 40, 30)"),  # several gray ones need a fourth dimension
        (PIXELS[None], "`images` [0]: an array of shape (3, 40, 30, 3)"),
        ([[1, 2]], "`images` [0]: list is not an image"),
        (PIXELS[:0], "is empty"),
        ([], "predict what?"),
        (None, "predict what?"),
    ],
)
def test_what_is_no_image_is_named(images: Any, telling: str, run: RunFolder) -> None:
    with pytest.raises(UserError) as caught:
        predict(run, images=images)
    assert telling in str(caught.value)


def test_a_run_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "made", "", seed=0)
    run.finish("failed")
    with pytest.raises(UserError, match="has no checkpoint"):
        predict(run, images=PIXELS)


def test_an_image_that_can_not_be_decoded_costs_its_own_row(
    run: RunFolder, expected: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "1a.png").write_text("no image")
    (tmp_path / "3.jpg").write_bytes((tmp_path / "0.png").read_bytes()[:200])
    with pytest.raises(
        UserError, match=r"1a.png .no known image format.: .*, or skip such images with `skip_corrupt`$"
    ):
        predict(run, images=tmp_path)
    found = predict(run, images=tmp_path, skip_corrupt=True)
    assert found.file.tolist() == [str(tmp_path / f"{number}.png") for number in range(3)]
    assert found.drop(columns="file").equals(expected.drop(columns="file"))
    assert [name for name, _ in found.attrs["skipped"]] == [str(tmp_path / name) for name in ("1a.png", "3.jpg")]
    assert main(["predict", "--ckpt_path", str(checkpoint_of(run)), "--images", str(tmp_path), "--skip_corrupt"]) == 0
    out = capsys.readouterr()
    assert out.out.splitlines()[-1] == "3 files classified, 2 skipped, written to predictions.csv"
    assert out.err.count("skipped: can't decode the image") == 2
    with pytest.raises(UserError, match="none of the 1 images can be decoded"):
        predict(run, images=tmp_path / "1a.png", skip_corrupt=True)

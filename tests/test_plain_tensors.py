"""Files of torch from outside: plain data or one line, whatever they hold, and no code from them runs."""

import io
import os
import pickle
import random
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lightning_cnn.errors import UserError
from lightning_cnn.modules.network import create_network
from lightning_cnn.modules.pretrained import read_weights
from lightning_cnn.plain_tensors import read_tensors
from lightning_cnn.resume.checkpoint_file import load_checkpoint

CONTENT: dict[str, Any] = {
    "state_dict": {"network.weight": torch.arange(6.0).view(2, 3), "network.bias": torch.zeros(2)},
    "pytorch-lightning_version": "2.6.0",
    "epoch": 1,
    "global_step": 5,
    "loops": {"fit_loop": {"state_dict": {}}},
    "callbacks": {},
    "hyper_parameters": {"lr": 0.1, "names": ["a", "b"]},
}


def _mutated(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    match draw.randint(0, 3):
        case 0:
            return bytes(changed[: draw.randrange(len(changed))])
        case 1:
            place = draw.randrange(len(changed))
            del changed[place : place + draw.randint(1, 20)]
        case _:
            for _ in range(draw.randint(1, 6)):
                changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def _with_pickle(archive: bytes, draw: random.Random) -> bytes:
    """An archive whose pickle alone is changed: the checksums of the others hold."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as before, zipfile.ZipFile(made, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            after.writestr(name, _mutated(content, draw) if name.endswith("data.pkl") else content)
    return made.getvalue()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_mutated_checkpoints(legacy: bool, tmp_path: Path) -> None:
    buffer, draw = io.BytesIO(), random.Random(21)
    torch.save(CONTENT, buffer, _use_new_zipfile_serialization=not legacy)
    path, refused = tmp_path / "a.ckpt", 0
    for number in range(240):
        inside = not legacy and number % 2
        path.write_bytes((_with_pickle if inside else _mutated)(buffer.getvalue(), draw))
        try:
            content = load_checkpoint(path)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 400
        else:
            assert isinstance(content["epoch"], int) and isinstance(content.get("callbacks", {}), dict)
            assert all(isinstance(value, torch.Tensor) for value in content["state_dict"].values())
    assert refused > 100


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("state_dict", [1]),
        ("state_dict", {"a": 1}),
        ("epoch", "1"),
        ("global_step", None),
        ("loops", 3),
        ("callbacks", []),
    ],
)
def test_a_part_of_another_type(name: str, value: object, tmp_path: Path) -> None:
    torch.save(CONTENT | {name: value}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=f"is damaged: {name} "):
        load_checkpoint(tmp_path / "a.ckpt")


class _Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harmed",)


class _Odd:
    pass


_Odd.__qualname__ = _Odd.__name__ = "Odd"


def test_code_is_named_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "x": _Harmful()}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"contains pickled code \((posix|nt)\.mkdir\) and was not loaded"):
        read_tensors(tmp_path / "a.pth", "a file of weights")
    assert not Path("harmed").exists()
    # protocol 0: the name of a module with a control character, in a line of its own
    Path("b.pth").write_bytes(b"\x80\x02c\x1b[31mbad\nname\n.")
    with pytest.raises(UserError) as error:
        read_tensors("b.pth", "a file of weights")
    assert "\x1b" not in str(error.value)


def test_what_can_not_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"can't be read \(No such file or directory\)"):
        read_tensors(tmp_path / "none.pth", "a file of weights")
    with pytest.raises(UserError, match=r"can't be read \(Is a directory\)"):
        read_tensors(tmp_path, "a file of weights")


def test_what_timm_saves(tmp_path: Path) -> None:
    """Its arguments as a Namespace, its metric as a number of NumPy, averaged weights beside the others."""
    own, averaged = ({"weight": torch.full((2, 3), value)} for value in (1.0, 2.0))
    content = {
        "epoch": 3,
        "arch": "resnet18",
        "state_dict": own,
        "args": Namespace(lr=0.1, model="resnet18", mean=None, sizes=[1, 2]),
        "metric": np.float64(77.25),
        "kinds": [np.float32(0.5), np.int64(3), np.bool_(True)],
        "state_dict_ema": averaged,
    }
    torch.save(content, tmp_path / "model_best.pth.tar")
    found = read_tensors(tmp_path / "model_best.pth.tar", "a file of weights")
    assert found["metric"] == 77.25 and found["kinds"] == [0.5, 3, True] and found["args"].sizes == [1, 2]
    assert read_weights(str(tmp_path / "model_best.pth.tar")).state["weight"].eq(2).all()


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model.", "_orig_mod.model.", "net."]
)
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model", "model_ema", "checkpoint"])
def test_prefixes_and_wrappers(prefix: str, wrapper: str | None, tmp_path: Path) -> None:
    network = create_network("linear", 10, 1, 28)
    state = {f"{prefix}{name}": value + 1 for name, value in network.state_dict().items()}
    content = state if wrapper is None else {wrapper: state, "epoch": 3, "optimizer": {"state": {}}}
    path = str(tmp_path / "weights.pth")
    torch.save(content, path)
    if wrapper == "checkpoint":  # in nobody's training
        with pytest.raises(UserError, match="holds no named weights"):
            read_weights(path)
        return
    filled = create_network("linear", 10, 1, 28, weights=read_weights(path))
    for name, value in network.state_dict().items():
        assert torch.equal(filled.state_dict()[name], value + 1)


def test_a_network_with_such_a_name_of_its_own() -> None:
    from lightning_cnn.modules.pretrained import Weights

    own = nn.ModuleDict({"model": nn.Linear(3, 2)}).state_dict()
    assert Weights("a", own).named_as(own).state.keys() == {"model.weight", "model.bias"}
    assert Weights("a", own).named_as(nn.Linear(3, 2).state_dict()).state.keys() == {"weight", "bias"}


def test_numbers_are_made_of_bytes_alone(tmp_path: Path) -> None:
    """`numpy.core.multiarray.scalar` with objects would be a way in; here it is refused."""
    made_by: Any = np.float64(1).__reduce__()[0]
    assert made_by.__name__ == "scalar"  # what `_number` stands in for
    Path("object.pkl").write_bytes(pickle.dumps({"a": np.dtype("O")}, protocol=2))
    with pytest.raises(UserError):
        read_tensors("object.pkl", "a file of weights")

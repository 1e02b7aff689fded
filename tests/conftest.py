import gzip
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """One thread for each of pytest's workers, and for the processes that they start: more would only queue up."""
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_works() -> None:
    """Started in the background, as by `nohup`, pytest would hand an ignored SIGINT on to the processes it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What fixtures of a whole module do is not remembered in the user's home."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has an empty working directory, and nothing of the user's settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}-state")
    for name in os.environ:
        if name in ("LIGHTNING_CNN_RUNS", "LIGHTNING_CNN_DATA") or name.startswith("WANDB_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def project() -> Path:
    """The root of the project."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data that lies beside the project, where it does."""
    if not SHARED_DATA.is_dir():
        pytest.skip("../shared/data is not there")
    return SHARED_DATA


@pytest.fixture(scope="session")
def mnist_root(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the real MNIST in the layout of torchvision; not to be written to."""
    root = tmp_path_factory.mktemp("real")
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    zipped = sorted((shared_data / "mnist").glob("*.gz"))
    assert len(zipped) == 4
    for file in zipped:
        (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    return root


@pytest.fixture
def timm_registry() -> Iterator[None]:
    """Forgets the networks that the test registers with timm."""
    import timm
    from timm.models import _registry as registry

    import lightning_cnn.architectures  # noqa: F401  ours are there before and stay

    before = set(timm.list_models())
    yield
    for name in set(timm.list_models()) - before:
        registry._module_to_models[registry._model_to_module.pop(name)].discard(name)
        del registry._model_entrypoints[name]

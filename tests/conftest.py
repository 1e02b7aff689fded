import copy
import functools
import gc
import gzip
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from blank_figures import BLANK, draw_blank

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
    """What fixtures of a whole module do is not remembered in the user's home, nor by W&B."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["WANDB_MODE"] = "disabled"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first; the others keep their order."""
    items.sort(key=lambda item: item.get_closest_marker("first") is None)


def pytest_runtest_setup() -> None:
    """What imported modules hold is never garbage; to look through it again and again takes a tenth of the time."""
    global _modules
    if len(sys.modules) > _modules + 100:
        _modules = len(sys.modules)
        gc.collect()
        gc.freeze()


_modules = 0


@pytest.fixture(scope="session", autouse=True)
def _digits() -> Iterator[None]:
    """The text file of the digits is read once."""
    from sklearn import datasets

    read = functools.cache(datasets.load_digits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_digits", lambda **options: copy.deepcopy(read(**options)))
        yield


@pytest.fixture(scope="module", autouse=True)
def _figures_of_the_module(request: pytest.FixtureRequest) -> Iterator[None]:
    """What fixtures of a whole module train has figures where the module is marked `figures`."""
    with pytest.MonkeyPatch.context() as patch:
        _draw_or_not(request, patch)
        yield


@pytest.fixture(autouse=True)
def _figures_of_the_test(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test trains has figures where it is marked `figures`."""
    _draw_or_not(request, monkeypatch)


def _draw_or_not(request: pytest.FixtureRequest, patch: pytest.MonkeyPatch) -> None:
    """Leaves the figures of a training blank where no test is about them: they take more time than all the rest."""
    if request.node.get_closest_marker("figures") is not None:
        patch.delenv(BLANK, raising=False)
        draw_blank(patch, blank=False)
        return
    patch.setenv(BLANK, "1")
    draw_blank(patch)


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has an empty working directory, and nothing of the user's settings; W&B only where it asks for it.

    Modules that it imports from there are forgotten: the next test may write another of that name.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}-state")
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path}-cache")
    for name in os.environ:
        if name in ("LIGHTNING_CNN_RUNS", "LIGHTNING_CNN_DATA") or name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    before = {*sys.modules}
    yield
    for name in {*sys.modules} - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(f"{tmp_path}/"):
            del sys.modules[name]


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

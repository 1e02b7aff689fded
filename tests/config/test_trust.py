"""No file from elsewhere names code that runs: 200 callables in every place of a checkpoint, through every verb."""

import functools
import importlib
import inspect
import itertools
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from run_folders import write_run
from safetensors.torch import save_file

from lightning_cnn.cli import main

MARK = "touch pwned"  # what every callable would be called with
FUNCTIONS = {  # of so many callables of each module, in the order of their names
    **dict.fromkeys(("os", "shutil", "subprocess", "importlib", "inspect", "pickle", "operator"), 10),
    **dict.fromkeys(("socket", "tempfile", "signal", "json", "ast", "asyncio", "urllib.request", "zipfile", "glob"), 6),
    **dict.fromkeys(("webbrowser", "pydoc", "pdb", "runpy", "timeit", "cProfile", "py_compile", "compileall"), 2),
    **dict.fromkeys(
        ("torch", "torch.hub", "torch.nn.functional", "torch.utils.cpp_extension", "torch.serialization"), 8
    ),
    **dict.fromkeys(("numpy", "pandas", "timm", "timm.models", "yaml", "PIL.Image", "matplotlib.pyplot", "optuna"), 6),
    **dict.fromkeys(("jsonargparse", "sklearn.datasets", "psutil", "wandb", "scipy.io", "joblib", "requests"), 5),
    **dict.fromkeys(("lightning_cnn.cli", "lightning_cnn.tracking.run", "lightning_cnn.engine.fit"), 3),
}
CLASSES: tuple[str, ...] = (
    "subprocess.Popen",
    "threading.Thread",
    "functools.partial",
    "logging.FileHandler",
    "zipfile.ZipFile",
)
CLASSES += ("torch.nn.Linear", "torch.utils.data.DataLoader", "pytorch_lightning.Trainer", "sqlite3.Connection")
CLASSES += ("concurrent.futures.ThreadPoolExecutor", "pytorch_lightning.callbacks.LambdaCallback", "weakref.finalize")
# of modules that nothing here needs: they would run when they are imported
UNKNOWN: tuple[str, ...] = (
    "antigravity.geohash",
    "this.c",
    "idlelib.run.main",
    "turtledemo.__main__.main",
    "lib2to3.main.main",
)
UNKNOWN += ("xmlrpc.server.SimpleXMLRPCServer", "smtpd.SMTPServer", "nntplib.NNTP", "evil.Net", "evil_package.part.Net")
OURS = {"model": "lightning_cnn.modules.ImageClassifier", "data": "lightning_cnn.datamodules.Digits"}
called: list[str] = []


def callables() -> list[str]:
    """Names of functions, the same ones each time."""
    names = []
    for module_name, count in FUNCTIONS.items():
        module = importlib.import_module(module_name)
        found = (name for name in sorted(vars(module)) if inspect.isroutine(getattr(module, name)))
        # their wrappers would be in their own way
        usable = (
            name for name in found if name not in ("currentframe", "stack", "fspath") and not name.startswith("_")
        )
        names += [f"{module_name}.{name}" for name in itertools.islice(usable, count)]
    return names


NAMES = [*callables(), *CLASSES, *UNKNOWN]


def test_there_are_200_names() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 200


def watched(name: str, original: Any) -> Any:
    """The same, but it says where it is called with the mark."""

    def note(arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        if any(isinstance(value, str) and value == MARK for value in (*arguments, *options, *options.values())):
            called.append(name)

    if isinstance(original, type):

        def __new__(cls: type, *arguments: Any, **options: Any) -> Any:
            note(arguments, options)
            return original(*arguments, **options)

        generic = classmethod(lambda cls, _: cls)  # files of ours that are imported later say `DataLoader[...]`
        body = {"__new__": __new__, "__module__": original.__module__, "__class_getitem__": generic}
        return type(original.__name__, (original,), body)

    @functools.wraps(original)
    def function(*arguments: Any, **options: Any) -> Any:
        note(arguments, options)
        return original(*arguments, **options)

    return function


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What of the callables is called with the mark."""
    called.clear()
    for name in (*callables(), *CLASSES):
        module_name, _, attribute = name.rpartition(".")
        module = importlib.import_module(module_name)
        monkeypatch.setattr(module, attribute, watched(name, getattr(module, attribute)))
    for evil in ("evil", "evil_package/__init__", "evil_package/part"):
        Path(evil).parent.mkdir(exist_ok=True)
        Path(f"{evil}.py").write_text("open('pwned', 'a')\nclass Net: pass\n")
    Image.new("L", (8, 8)).save("x.png")
    yield called
    assert not Path("pwned").exists()


# where a checkpoint may name something
PLACES: dict[str, Callable[[str], tuple[dict[str, Any], dict[str, Any]]]] = {
    "model": lambda name: ({"_class_path": name, "command": MARK, "args": MARK, "shell": True}, {}),
    "data": lambda name: ({}, {"_class_path": name, "command": MARK, "args": MARK}),
    "instantiator": lambda name: ({"_instantiator": name, "command": MARK}, {"_instantiator": name}),
    "network": lambda name: ({"architecture": name}, {}),
    "option": lambda name: ({"architecture_options": {"act_layer": name}}, {}),
    "object": lambda name: ({"architecture_options": {"act_layer": spec(name)}}, {}),
    "optimizer": lambda name: ({"optimizer": name, "optimizer_options": {"eps": spec(name)}}, {}),
    "weights": lambda name: ({"weights": spec(name)}, {}),
    "augmentation": lambda name: ({}, {"augment": spec(name)}),
    "root": lambda name: ({}, {"num_workers": [spec(name)], "batch_size": name}),
}
VERBS: dict[str, list[str]] = {
    "predict": ["predict", "--images", "x.png"],
    "rank": ["predict", "--prices", "x.png"],
    "export": ["export", "--format", "torch"],
    "features": ["features"],
    "test": ["test"],
    "validate": ["validate"],
    "fit": ["fit", "--wandb", "disabled"],
    "train": ["train", "--wandb", "disabled", "--data", "Digits"],
    "show": ["show"],
}
QUICK = ("predict", "rank", "export", "features")  # these read the checkpoint before anything else


def spec(name: str) -> dict[str, Any]:
    return {"class_path": name, "init_args": {"args": MARK, "command": MARK}}


def write_checkpoint(name: str, place: str) -> Path:
    model, data = PLACES[place](name)
    content = {
        "state_dict": {},
        "pytorch-lightning_version": "2.6",
        "x": {"preprocessing": {"image_size": 8, "in_channels": 1}, "scaling": {"low": [0.0]}},
        "hyper_parameters": {"_class_path": OURS["model"], "num_classes": 10, "in_channels": 1, "image_size": 8}
        | model,
        "datamodule_hyper_parameters": {"_class_path": OURS["data"]} | data,
    }
    path = Path("hostile.ckpt")
    torch.save(content, path)
    return path


def check_refused(words: list[str], name: str, watching: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Runs a verb; it must end with one line and call nothing. Returns the line."""
    module = name.rpartition(".")[0]
    was_there = module in sys.modules
    capsys.readouterr()
    code = main(words)
    errors = capsys.readouterr().err.splitlines()
    if (words[0], code, watching) == ("show", 0, []):  # it makes no network
        errors, code = ["error: "], 2
    assert (watching, code, len(errors)) == ([], 2, 1), (name, words, errors)
    assert errors[0].startswith("error: ")
    assert (module in sys.modules) == was_there, f"{name} was imported"
    return errors[0]


@pytest.mark.parametrize("verb", QUICK)
def test_no_name_in_a_checkpoint_is_called(verb: str, watching: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Each of the 200 as the model, and in the other places in turn; every verb has its share of them."""
    start = [*QUICK].index(verb)
    others = itertools.cycle(place for place in PLACES if place != "model")
    for name in NAMES[start :: len(QUICK)]:
        for place in ("model", next(others)):
            path = write_checkpoint(name, place)
            check_refused([*VERBS[verb], "--ckpt_path", str(path)], name, watching, capsys)


@pytest.mark.parametrize("place", PLACES)
def test_no_name_in_a_checkpoint_is_called_by_the_verbs_that_train_and_test(
    place: str, watching: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each verb takes a second to begin, so each place has a few names and, over all places, each verb several."""
    start = [*PLACES].index(place)
    verbs = itertools.cycle(verb for verb in VERBS if verb not in QUICK)
    for name in [*NAMES[start :: 2 * len(PLACES)][:4], CLASSES[start], UNKNOWN[start]]:
        path = write_checkpoint(name, place)
        check_refused([*VERBS[next(verbs)], "--ckpt_path", str(path)], name, watching, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("place", PLACES)
def test_all_names_in_all_places_through_all_verbs(
    verb: str, place: str, watching: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in NAMES:
        check_refused([*VERBS[verb], "--ckpt_path", str(write_checkpoint(name, place))], name, watching, capsys)


# what the configuration of a run may name something in
SETTINGS: dict[str, Callable[[str], dict[str, Any]]] = {
    "model": lambda name: {"model": spec(name)},
    "data": lambda name: {"data": name},
    "network": lambda name: {"model": {"class_path": OURS["model"], "init_args": {"architecture": name}}},
    "callback": lambda name: {"trainer": {"callbacks": [spec(name)]}},
    "hook": lambda name: {"trainer": {"callbacks": [hook(name)]}},
    "hook with arguments": lambda name: {"trainer": {"callbacks": [hook(spec(name))]}},
    "logger": lambda name: {"trainer": {"logger": spec(name)}},
    "strategy": lambda name: {"trainer": {"strategy": spec(name)}},
    "plugin": lambda name: {"trainer": {"plugins": [spec(name)]}},
    "profiler": lambda name: {"trainer": {"profiler": spec(name)}},
    "object": lambda name: {"model": {"class_path": OURS["model"], "init_args": {"architecture_options": spec(name)}}},
}


def hook(value: Any) -> dict[str, Any]:
    return {"class_path": "pytorch_lightning.callbacks.LambdaCallback", "init_args": {"on_fit_start": value}}


def write_foreign_run(settings: dict[str, Any]) -> Path:
    start = {"model": {"class_path": OURS["model"]}, "data": {"class_path": OURS["data"]}, "wandb": "disabled"}
    return write_run(Path("downloads"), "exp/1", start | settings, status="interrupted")


@pytest.mark.parametrize("place", SETTINGS)
def test_no_name_in_a_run_folder_is_called(place: str, watching: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    start = [*SETTINGS].index(place)
    for name in [*NAMES[start :: 2 * len(SETTINGS)][:3], CLASSES[start], UNKNOWN[start % len(UNKNOWN)]]:
        folder = write_foreign_run(SETTINGS[place](name) | {"runs_dir": "/"})
        (folder / "checkpoints").mkdir()
        write_checkpoint(f"{OURS['model']}", "model").rename(folder / "checkpoints/best.ckpt")
        for words in (["fit", "--resume", str(folder)], ["report", str(folder)]):
            check_refused(words, name, watching, capsys)
        shutil.rmtree("downloads")


@pytest.mark.parametrize("place", ["model", "data", "network"])
def test_no_name_in_the_checkpoint_of_a_reported_run_is_called(
    place: str, watching: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_foreign_run({"runs_dir": "/"})
    (folder / "checkpoints").mkdir()
    for name in ("evil.Net", "subprocess.Popen"):
        write_checkpoint(name, place).rename(folder / "checkpoints/best.ckpt")
        check_refused(["report", str(folder)], name, watching, capsys)


@pytest.mark.parametrize("place", [place for place in SETTINGS if not place.startswith("hook")])
def test_a_configuration_of_the_user_calls_no_other_kind(
    place: str, watching: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    start = {"data": "Digits", "wandb": "disabled", "model": {"architecture": "linear"}}
    for name in ("os.popen", "subprocess.Popen", "functools.partial"):
        Path("mine.yaml").write_text(yaml.safe_dump(start | SETTINGS[place](name)))
        check_refused(["fit", "--config", "mine.yaml"], name, watching, capsys)


def test_a_method_that_reads_pickles_is_no_class(watching: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """It returns a LightningModule, which to jsonargparse is as good as a class."""
    words = ["fit", "--data", "Digits", "--model", "pytorch_lightning.LightningModule.load_from_checkpoint"]
    check_refused([*words, "--model.checkpoint_path", "x.ckpt", "--wandb", "disabled"], "os.x", watching, capsys)


def test_no_name_beside_the_weights_is_called(watching: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for name in (*CLASSES[:3], *UNKNOWN[-3:], *NAMES[:3]):
        values = {"_class_path": name, "class_path": name, "architecture": name, "args": MARK}
        save_file({"weight": torch.zeros(1)}, "hostile.safetensors", metadata=values)
        torch.save({"state_dict": {"weight": torch.zeros(1)}, **values}, "hostile.pth")
        for file in ("hostile.safetensors", "hostile.pth"):
            words = ["predict", "--architecture", "test_resnet", "--weights", file, "--images", "x.png"]
            check_refused(words, name, watching, capsys)


def test_a_network_can_not_read_a_pickle_by_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--data", "Digits", "--model.architecture", "resnet18", "--wandb", "disabled"]
    assert main([*words, "--model.architecture_options", '{"checkpoint_path": "x.pth"}']) == 2
    assert "use --model.weights" in capsys.readouterr().err


MY_NET = """
import my_part
from lightning_cnn.modules import ImageClassifier
from lightning_cnn.datamodules import Digits
class Net(ImageClassifier):
    pass
class Data(Digits):
    pass
"""
QUICK_FIT = ["fit", "--data", "my_net.Data", "--model", "my_net.Net", "--model.architecture", "linear"]
QUICK_FIT += ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--wandb", "disabled"]


@pytest.fixture
def forgotten() -> Callable[[], None]:
    """Lets the modules of the user be imported anew, as in another process."""

    def forget() -> None:
        for name in ("my_net", "my_part"):
            sys.modules.pop(name, None)

    Path("my_net.py").write_text(MY_NET)
    Path("my_part.py").write_text("")
    importlib.invalidate_caches()
    return forget


@pytest.mark.parametrize("place", ["runs", "typed", pytest.param("variable", marks=pytest.mark.slow)])
def test_classes_of_the_user_in_his_own_runs_need_no_option(
    place: str, forgotten: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "variable":
        monkeypatch.setenv("LIGHTNING_CNN_RUNS", "other")
    where = ["--runs_dir", "other"] if place == "typed" else []
    assert main([*QUICK_FIT, *where]) == 0
    (best,) = Path("runs" if place == "runs" else "other").glob("*/*/checkpoints/best.ckpt")
    Image.new("L", (8, 8)).save("x.png")
    more = ["--trainer.max_epochs", "2", "--trainer.limit_train_batches", "1"]
    commands = [
        ["fit", "--resume", best.parts[-3], *where, *more],
        ["fit", *where, "--ckpt_path", str(best), *more, *more[:1], "3"],
    ]
    verbs = ("test", "validate", "predict", "export", "features") if place == "typed" else ("test", "predict", "export")
    commands += [[*VERBS[verb], "--ckpt_path", str(best)] for verb in verbs]
    for words in commands:
        forgotten()
        assert main(words) == 0
        assert "my_net" in sys.modules
    assert not any(Path(path or ".").resolve() == Path.cwd() for path in sys.path)


def test_classes_of_the_user_elsewhere_need_one(
    forgotten: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(QUICK_FIT) == 0
    (run,) = Path("runs").glob("*/*")
    Path("downloads/exp").mkdir(parents=True)
    run = run.rename("downloads/exp/1")
    best = str(run / "checkpoints" / "best.ckpt")
    Image.new("L", (8, 8)).save("x.png")
    more = ["--trainer.max_epochs", "2", "--trainer.limit_train_batches", "1"]
    commands = [[*VERBS[verb], "--ckpt_path", best] for verb in ("predict", "features", "test")]
    for words in (*commands, ["fit", "--resume", str(run), *more]):
        forgotten()
        line = check_refused(words, "my_net.Net", [], capsys)
        assert "lies outside your runs directories (such as runs)" in line and line.endswith("add --trust my_net")
        assert main([*words, "--trust", "my_net"]) == 0
    forgotten()
    assert main(["validate", "--ckpt_path", best, "--model", "my_net.Net"]) == 0  # the user names it himself
    forgotten()
    assert main(["fit", "--resume", str(run), "--runs_dir", "downloads", "--trainer.max_epochs", "3"]) == 0
    assert "trust" not in yaml.safe_load((run / "config.yaml").read_text())


def test_a_run_of_our_own_classes_goes_on_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--data", "Digits", "--model.architecture", "linear", "--wandb", "disabled"]
    assert main([*words, "--trainer.max_epochs", "1", "--trainer.callbacks+=EarlyStopping",
                 "--trainer.callbacks.monitor", "val/loss"]) == 0  # fmt: skip
    (run,) = Path("runs").glob("*/*")
    Path("downloads/exp").mkdir(parents=True)
    run = run.rename("downloads/exp/1")
    assert main(["fit", "--resume", str(run), "--trainer.max_epochs", "2"]) == 0
    assert main(["test", "--ckpt_path", str(run / "checkpoints" / "best.ckpt")]) == 0

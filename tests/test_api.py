"""The Python door: every public function as a notebook calls it."""

import ast
import inspect
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch

import lightning_cnn as lc
from lightning_cnn.resume.signals import SIGNALS, received

SMALL: dict[str, Any] = {"limit_train_batches": 3, "limit_val_batches": 2, "limit_test_batches": 2, "max_epochs": 1}
QUICK: dict[str, Any] = {
    "data": "Digits",
    "model": {"architecture": "linear", "lr": 0.01},
    "trainer": SMALL | {"accelerator": "cpu"},
    "wandb": "disabled",
}
KEPT_BY_OTHERS = ("PYTEST_CURRENT_TEST", "WANDB_SERVICE", "WANDB_ERROR_REPORTING")  # the last at the import of W&B
AFRESH = "import json, sys, lightning_cnn as lc; lc.fit(json.loads(sys.argv[1]), runs_dir='fresh', seed=3)"


def typed(**options: Any) -> dict[str, Any]:
    """Options of the wrong type, of which mypy is not to know."""
    return options


def state() -> list[Any]:
    """All that a call must leave as it was."""
    cudnn = torch.backends.cudnn
    return [
        {name: value for name, value in os.environ.items() if name not in KEPT_BY_OTHERS},
        random.getstate(),
        [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        torch.get_rng_state().tolist(),
        [signal.getsignal(signum) for signum in SIGNALS],
        [*warnings.filters],
        [*sys.meta_path],
        [*sys.path],
        threading.excepthook,
        (torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, cudnn.deterministic, torch.get_num_threads()),
        received(),
    ]


def weights(run: lc.Run, kind: str = "last") -> dict[str, torch.Tensor]:
    content = torch.load(run.folder / "checkpoints" / f"{kind}.ckpt", weights_only=True)
    found: dict[str, torch.Tensor] = content["state_dict"]
    return found


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> lc.Run:
    """A finished run on the digits."""
    folder = tmp_path_factory.mktemp("trained")
    return lc.train("digits_lenet5", **QUICK, runs_dir=folder / "runs", seed=1)


def test_each_public_name_is_there_and_typed() -> None:
    assert all(getattr(lc, name) is not None for name in lc.__all__)
    assert set(dir(lc)) == set(lc.__all__)
    tree = ast.parse(Path(lc.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imported = {name.asname for node in block.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert imported == {*lc.FILES, *lc.ROOMS}
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        lc.trian  # noqa: B018
    assert (Path(lc.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("name", [name for name in sorted(lc.FILES) if not isinstance(getattr(lc, name), type)])
def test_each_public_function_says_what_it_takes_gives_and_raises(name: str) -> None:
    function = getattr(lc, name)
    text = function.__doc__
    assert "Args:" in text and "Raises:" in text
    assert [word for word in inspect.signature(function).parameters if f"{word}:" not in text] == []


def test_quick_answers_load_no_torch(trained: lc.Run) -> None:
    code = (
        "import sys, lightning_cnn as lc; run = lc.load_run(sys.argv[1]); print(run.metrics['test/acc'], run.status);"
        "assert 'torch' not in sys.modules"
    )
    call = [sys.executable, "-c", code, str(trained.folder)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{trained.metrics['test/acc']} finished\n", done.stderr


def test_a_run_is_its_folder(trained: lc.Run) -> None:
    run = lc.load_run(trained.folder)
    assert run.metrics == trained.metrics and {"train/loss", "val/acc", "test/acc"} <= run.metrics.keys()
    assert run.record.name == "digits_lenet5" and run.record.seed == 1  # the experiment's name, though fields differ
    assert run.record.command.startswith("train('digits_lenet5', seed=1, data='Digits', model={")
    flat = run.config.flat()
    assert flat["model.lr"] == 0.01 and flat["data.augment.shift"] == 0.08
    assert {"epoch", "step", "val/acc"} <= {*run.history.columns}
    assert repr(run).startswith(f"Run('digits_lenet5/{run.record.id}', finished, val/")
    with pytest.raises(lc.UserError, match="no predictions"):
        run.predictions  # noqa: B018
    with pytest.raises(lc.UserError, match="no run 'nothing' under"):
        lc.load_run("nothing")


def test_module_and_data_go_with_a_trainer_of_lightning(trained: lc.Run) -> None:
    module, data = trained.module(), trained.datamodule()
    assert not module.training
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(accelerator="cpu", limit_test_batches=2, **quiet)
    (metrics,) = trainer.test(module, data, verbose=False)
    assert metrics["test/acc"] == trained.metrics["test/acc"]
    assert equal(dict(module.state_dict()), weights(trained, "best"))


@pytest.mark.parametrize(
    ("call", "telling"),
    [
        (lambda run: lc.fit(run.config, trainer={"devices": "x"}), "devices"),
        (lambda run: lc.fit(run.config, trust="nope", modl=1), "modl"),
        (lambda run: lc.train(run.config, modl={"lr": 1}), "unknown option `modl.lr`; did you mean `model.lr`"),
        (lambda run: lc.train(run.config, **typed(seed="a")), "`seed_everything` a: expected bool or int"),
        (lambda run: lc.train(), "which data? Add `data` (`list_data()`), or an experiment: name"),
        (lambda run: lc.train(**typed(seed=1)), "which data? Add `data` (`list_data()`), or an experiment: name"),
        (lambda run: lc.train(*typed(_=3).values()), "3 is no experiment: expected a name (`list_experiments()`)"),
        (lambda run: lc.compare(*typed(_=3).values()), "`runs` 3: expected a run, its folder, its id, an experiment"),
        (
            lambda run: lc.compare(run, group_by="nope"),
            "`group_by` nope: expected a setting in which the runs differ; there is none",
        ),
        (lambda run: lc.sweep(run.config, search="model.lrr=[1]"), "`search` model.lrr"),
        (lambda run: lc.sweep(run.config, search="model.lr"), "`search` 'model.lr': expected NAME="),
        (lambda run: lc.walk_forward(run.config), "a walk-forward needs monthly data"),
        (lambda run: lc.export(run, **typed(format="bad")), "`format` 'bad': expected one of onnx, torch"),
        (lambda run: lc.features(run, **typed(parts=["trai"])), "`parts` 'trai': expected one of train, val, test"),
        (lambda run: lc.features(run, **typed(accelerator="gpux")), "`accelerator` 'gpux': expected one of auto, cpu"),
        (lambda run: lc.features(None, data="SyntheticReturns"), "is not an ImageDataModule"),
        (lambda run: lc.probe("x.parquet", **typed(method="bad")), "`method` 'bad': expected one of"),
        (lambda run: lc.probe("x.parquet", **typed(c=["a"])), "`c` 'a': expected a number"),
        (
            lambda run: lc.predict(run, images=np.zeros((8, 8), np.uint8), **typed(top_k="a")),
            "`top_k` 'a': expected a number",
        ),
    ],
)
def test_a_mistyped_value_is_a_user_error(trained: lc.Run, call: Callable[[lc.Run], object], telling: str) -> None:
    with pytest.raises(lc.UserError, match=re.escape(telling)):
        call(trained)


def test_a_late_ctrl_c_is_none_the_less_one(trained: lc.Run) -> None:
    """After the last batch all is kept, and the caller's loop ends."""
    with pytest.raises(KeyboardInterrupt):
        lc.fit(trained.config, trainer={"callbacks": ["test_api.Late"]}, experiment="late", runs_dir="runs")
    (folder,) = Path("runs/late").glob("*")
    assert lc.load_run(folder).status == "finished"


def test_measuring(trained: lc.Run, capfd: pytest.CaptureFixture[str]) -> None:
    before = state()
    validated = lc.validate(trained, trainer={"limit_val_batches": 2, "accelerator": "cpu"})
    assert validated["val/acc"] == trained.metrics["val/acc"]
    whole = lc.test(trained.folder, trainer={"accelerator": "cpu"})
    assert lc.load_run(trained.folder).metrics["test/acc"] == trained.metrics["test/acc"]  # with fields nothing changes
    again = lc.load_run(trained.folder)
    assert again.test() == whole
    assert again.metrics["test/acc"] == whole["test/acc"] == lc.load_run(trained.folder).metrics["test/acc"]
    again.record.metrics = trained.record.metrics
    again.save()
    assert state() == before
    assert capfd.readouterr() == ("", "")


def test_images(trained: lc.Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    images = np.zeros((2, 8, 8), dtype=np.uint8)
    frame = trained.predict(list(images), top_k=1)
    assert isinstance(frame, pd.DataFrame) and [*frame["file"]] == ["image 0", "image 1"]
    written = lc.features(trained, parts=["test"], output=tmp_path / "digits.npz")
    assert written.images == {"test": 360} and written.path == tmp_path / "digits.npz"
    data = lc.datamodules.Digits()
    assert lc.features(None, data, parts=["test"], output="pixels.parquet").images == {"test": 360}
    with pytest.raises(lc.UserError, match="`batch_size`: a data module already has its settings"):
        lc.features(None, data, batch_size=3)
    assert lc.show("digits_lenet5", output=tmp_path / "some.png", count=2) == tmp_path / "some.png"
    assert lc.export(trained, output=str(tmp_path / "linear.onnx")).path == tmp_path / "linear.onnx"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": {"lrr": 0.1}}, "`model.lrr`.*did you mean.*model.lr"),
        ({"experiment_": 1}, "`experiment_`"),
        ({"seeds": range(3)}, "`seeds`: `train` trains one run"),
        ({"trainer": {"devices": 2}}, "`trainer.devices` 2: a call trains in one process; .* torchrun"),
        ({"trainer": {"fast_dev_run": True}}, "`trainer.fast_dev_run` saves no run"),
        ({"seed": 1, "seed_everything": 2}, "`seed` and `seed_everything` are the same"),
        ({"trainer": {"callbacks": [pl.callbacks.EarlyStopping("val/loss")]}}, "`trainer.callbacks`: EarlyStopping"),
        ({"model": type("Mine", (pl.LightningModule,), {"__module__": "__main__"})}, "`model`: Mine is defined in a"),
        ({"resume": "nothing"}, "no run 'nothing'"),
    ],
)
def test_mistakes_name_the_field(fields: dict[str, Any], words: str) -> None:
    before = state()
    with pytest.raises(lc.UserError, match=words):
        lc.train("digits_lenet5", **{"wandb": "disabled", **fields})
    assert state() == before and not Path("runs").exists()


def test_a_name_that_is_not_shipped() -> None:
    with pytest.raises(lc.UserError, match=r"no configuration file mnist_lennet5; did you mean .*mnist_lenet5"):
        lc.train("mnist_lennet5")


def test_experiments_in_every_form() -> None:
    """A shipped name, a file, a dict, a configuration; dotted names, scalars of NumPy, a class."""
    Path("mine.yaml").write_text("data: Digits\nmodel: {lr: 0.5}\n")
    shipped = lc.Config.of("digits_lenet5", lc.Config.load("digits_lenet5").kind, seed=7)
    assert shipped.stem == "digits_lenet5" and shipped["seed_everything"] == 7
    config = lc.Config.load("mine.yaml", {"data.batch_size": np.int64(8)}, model=lc.modules.ImageClassifier)
    assert config.flat()["data.batch_size"] == 8 and config.stem == "mine"
    dotted: dict[str, Any] = {"model.lr": np.float32(0.25)}
    run = lc.fit(config, **dotted, trainer=QUICK["trainer"], wandb="disabled")
    assert run.config["model"]["init_args"]["lr"] == 0.25 and run.record.name == "mine"
    assert "test/acc" not in run.metrics and run.folder.is_relative_to(Path("runs/mine").absolute())


def test_one_process_trains_again_and_again(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """After an image task, mistakes and returns: the weights are those of a fresh process, and nothing is left over."""
    monkeypatch.setenv("LIGHTNING_CNN_RUN", "runs/given/folder")
    before = state()
    assert lc.fit(QUICK, seed=3).folder == Path("runs/given/folder").absolute()
    with pytest.raises(lc.UserError, match=r"`model.architecture` 'lennet5'; did you mean lenet5"):
        lc.fit(QUICK, model={"architecture": "lennet5"})
    with pytest.raises(RuntimeError, match="broken"):
        lc.fit(QUICK, trainer={"max_epochs": 2, "callbacks": ["test_api.Breaking"]})
    data = {"class_path": "SyntheticReturns", "stocks": 30, "months": 60, "lags": 6, "val_months": 6}
    returns = lc.fit(data=data, trainer=QUICK["trainer"], wandb="disabled", seed=3)
    assert returns.metrics.keys() >= {"val/loss", "val/auc"}
    again = lc.fit(QUICK, seed=3)
    assert again.folder.parent.name == "digits_linear"
    assert state() == before and capfd.readouterr() == ("", "")
    monkeypatch.delenv("LIGHTNING_CNN_RUN")
    subprocess.run([sys.executable, "-c", AFRESH, json.dumps(QUICK)], check=True, timeout=120)
    (fresh,) = Path("fresh").glob("*/*")
    assert equal(weights(again), weights(lc.load_run(fresh)))


def test_a_random_seed_is_another_each_time() -> None:
    seeds = [lc.fit(QUICK, seed=True).record.seed for _ in range(2)]
    assert seeds[0] != seeds[1] and all(type(seed) is int for seed in seeds)


class Late(pl.Callback):
    """Is told to stop when all is trained."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        signal.raise_signal(signal.SIGINT)


class Breaking(pl.Callback):
    """A callback with a mistake."""

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("broken")


class Stop(pl.Callback):
    """Lets Ctrl-C come from another thread, in the middle of the second epoch."""

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.current_epoch == 1:
            press = threading.Timer(0.0, signal.raise_signal, [signal.SIGINT])
            press.start()
            press.join()
            time.sleep(0.05)


def test_ctrl_c_and_going_on(capfd: pytest.CaptureFixture[str]) -> None:
    fields = QUICK | {"trainer": QUICK["trainer"] | {"max_epochs": 2}}
    whole = lc.train(fields, seed=5)
    before = state()
    with pytest.raises(KeyboardInterrupt) as caught:
        lc.train(fields, seed=5, trainer={"callbacks": ["test_api.Stop"]})
    assert state() == before
    (folder,) = [path for path in Path("runs/digits_linear").iterdir() if path.name != whole.folder.name]
    run = lc.load_run(folder)
    assert run.status == "interrupted" and "test/acc" not in run.metrics
    assert caught.value.__notes__ == [
        f"resume from the last checkpoint in {folder} with: `train(resume={folder.name!r})`"
    ]
    assert run.resume(trainer={"callbacks": None}) is run
    end = lc.load_run(folder)
    assert end.status == "finished" and end.metrics == run.metrics and equal(weights(end), weights(whole))
    assert end.metrics["val/loss"] == whole.metrics["val/loss"] and end.metrics["test/acc"] == whole.metrics["test/acc"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_all_processes_of_torchrun_get_the_run() -> None:
    """Twice in the same processes: a training, and its resumption."""
    Path("two.py").write_text(
        "import json, sys, lightning_cnn as lc\n"
        "run = lc.train(json.loads(sys.argv[1]), seed=1)\n"
        "print(run.folder, run.metrics['val/loss'], run.resume(trainer={'max_epochs': 2}).record.epochs, flush=True)\n"
    )
    call = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "two.py", json.dumps(QUICK)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300)
    first, second = done.stdout.splitlines()
    assert first == second and first.endswith(" 2"), done.stderr


def test_in_a_thread() -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(lc.fit(QUICK, seed=3)))
    thread.start()
    thread.join()
    assert found[0].status == "finished"


def test_a_run_of_w_and_b_of_the_users_own_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    own = wandb.init(project="mine", dir=".", mode="offline", settings=wandb.Settings(silent=True))
    try:
        with pytest.raises(lc.UserError, match="`wandb`: this process already has a W&B run"):
            lc.fit(QUICK, wandb="offline")
        assert lc.fit(QUICK).status == "finished"
        assert wandb.run is own and not Path("runs/digits_linear/none").exists()
    finally:
        own.finish()


def test_somebody_elses_run_is_not_trusted_and_the_next_call_is(trained: lc.Run, tmp_path: Path) -> None:
    config = Path("elsewhere/a/1/config.yaml")
    config.parent.mkdir(parents=True)
    (config.parent / "run.json").write_text((trained.folder / "run.json").read_text())
    text = (trained.folder / "config.yaml").read_text()
    config.write_text(text.replace("lightning_cnn.modules.ImageClassifier", "evil.Net"))
    assert "evil.Net" in config.read_text()
    Path("evil.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(lc.UserError, match="evil"):
        lc.load_run("elsewhere/a/1").config  # noqa: B018
    Path("own_net.py").write_text(
        "from lightning_cnn.modules import ImageClassifier\nclass Net(ImageClassifier):\n    'Mine.'\n"
    )
    run = lc.fit(QUICK | {"model": {"class_path": "own_net.Net", "architecture": "linear"}})
    assert type(run.module()).__name__ == "Net"

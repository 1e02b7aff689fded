"""Hundreds of command lines with something wrong in them, over every verb: done, or refused in one line."""

import os
import random
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lightning_cnn.cli import VERBS, main
from lightning_cnn.config.schema import FIT, TEST, TRAIN, VALIDATE, schema
from lightning_cnn.engine.sweep.settings import SWEEP
from lightning_cnn.engine.walkforward.settings import WALK_FORWARD

LINES = 330
SECONDS = 120  # for one line
LAUGHS = "{a: &a [x,x], b: &b [*a,*a], c: &c [*b,*b]}"
VALUES = (
    *("", " ", "0", "-1", "1", "2.5", "nan", "inf", "-inf", "1e400", "null", "true", "{", "[", "[]", "{}", "[1,2]"),
    *("{a: 1}", "!!int abc", "!!timestamp x", "2001-13-45", "~", "~/x", "$HOME", "$NOPE/x", "*", "a**", "a/../b", ".."),
    *("/dev/null", "x" * 300, "\x1b[31m", "猫", "--", "-x", "'", "9" * 5000, "[" * 500, LAUGHS, "a=b", "a,b", "NoSuch"),
    *(
        "lenet5",
        "Digits",
        "README.md",
        "photo.png",
        "photos",
        "data.csv",
        "runs",
        ".",
        "\ud800",
        "[null]",
        "1:2",
        "auto",
    ),
)
SHORT = "--trainer.max_steps 2 --trainer.limit_val_batches 1 --trainer.limit_test_batches 1"
ENDS = {"train": SHORT, "fit": SHORT, "sweep": f"{SHORT} --trials 1", "walkforward": SHORT}
QUIET = "--wandb disabled --data Digits --model.architecture linear --trainer.max_epochs 1"
# a line of each verb that works, or nearly
LIKELY = {
    "train": [f"{QUIET}", "--config mine.yaml", "--resume one"],
    "fit": [f"{QUIET}", "--config mine.yaml --trainer.callbacks EarlyStopping --trainer.callbacks.monitor val/loss"],
    "validate": ["--ckpt_path CKPT"],
    "runs": ["tag one good", "tag one --drop good", "note one text", "remove one"],
    "test": ["--ckpt_path CKPT", "--ckpt_path CKPT --data Digits"],
    "predict": ["--ckpt_path CKPT --images photo.png", "--ckpt_path CKPT --images photos --top_k 2"],
    "export": ["--ckpt_path CKPT --output a.onnx"],
    "filters": ["--ckpt_path CKPT", "--ckpt_path CKPT --image photo.png"],
    "explain": ["photo.png --ckpt_path CKPT --method saliency"],
    "show": [f"{QUIET}", "--config mine.yaml --images 2"],
    "features": ["--ckpt_path CKPT --data Digits --output f.parquet"],
    "probe": ["f.parquet --method knn"],
    "walkforward": ["--wandb disabled --data SyntheticReturns --trainer.max_epochs 1"],
    "report": ["p.parquet", "p.parquet --cost_bps 5"],
    "submit": ["--config mine.yaml --dry_run"],
    "sweep": [f"{QUIET} --search model.lr=[0.1,0.2]"],
    "list": ["", "runs", "data", "experiments", "architectures res*"],
    "compare": ["", "--json", "one --sort val/acc"],
    "benchmark": ["linear --image_size 28 --in_channels 1 --batch_size 2 --seconds 0.01"],
    "dashboard": ["--port 0"],
}
# what would start processes, never end, or fill the memory for good reasons
LEFT_OUT = (
    "trainer.strategy",
    "trainer.devices",
    "trainer.num_nodes",
    "launcher",
    "jobs",
    "trainer.max_time",
    "trials",
    "yes",  # runs are removed without a question
)
HEAVY = (
    "trainer.max_steps",
    "trainer.max_epochs",
    "data.image_size",
    "image_size",
    "trainer.fast_dev_run",
    "data.num_workers",
)


class TimeUpError(BaseException):
    """A line took too long."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the lines name."""
    folder = tmp_path_factory.mktemp("fuzz")
    before = Path.cwd()
    os.chdir(folder)
    try:
        words = [*QUIET.split(), *SHORT.split(), "--runs_dir", "made"]
        assert main(["fit", *words]) == 0
        (run,) = Path("made").glob("*/*")
        Path("runs/digits_linear").mkdir(parents=True)
        run.rename("runs/digits_linear/one")
    finally:
        os.chdir(before)
    pixels = np.random.default_rng(0).integers(0, 255, (28, 28), dtype=np.uint8)
    (folder / "photos").mkdir()
    for name in ("photo.png", "photos/a.png"):
        Image.fromarray(pixels).save(folder / name)
    (folder / "README.md").write_text("hello\n" * 50)
    (folder / "data.csv").write_text("date,ticker,price\n2001-01-31,A,1\n")
    (folder / "mine.yaml").write_text(
        "data: Digits\nmodel: {architecture: linear}\ntrainer: {max_epochs: 1}\nwandb: disabled\n"
    )
    rows = [
        (f"2001-{month:02}-28", f"S{name}", name / 9, month / 10 - 0.5) for month in range(1, 9) for name in range(6)
    ]
    pd.DataFrame(rows, columns=["date", "ticker", "prediction", "outcome"]).to_parquet(folder / "p.parquet")
    return folder


def _options(verb: str, printed: Callable[[], str]) -> list[str]:
    """The options of a verb, without dashes."""
    kinds = {kind.name: kind for kind in (TRAIN, FIT, VALIDATE, TEST, SWEEP, WALK_FORWARD)}
    if verb in kinds:
        names = {name for action in schema(kinds[verb])._actions for name in action.option_strings}
        names |= {f"--data.{name}" for name in ("root", "batch_size", "val_fraction", "augment.shift", "normalize")}
        names |= {
            f"--model.{name}"
            for name in ("lr", "architecture", "optimizer", "weights", "schedule", "optimizer_options")
        }
        names |= {"--model.label_smoothing", "--model.average", "--model", "--data", "--config", "--trust"}
    else:
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        names = {word.strip("[],") for word in printed().split() if word.strip("[],").startswith("--")}
    return sorted(name for name in names if not name.endswith("help") and name.removeprefix("--") not in LEFT_OUT)


def _line(verb: str, options: list[str], draw: random.Random) -> list[str]:
    """A line of a verb with one to three changes."""
    words = draw.choice(LIKELY[verb]).replace("CKPT", "runs/digits_linear/one/checkpoints/last.ckpt").split()
    for _ in range(draw.randint(1, 3)):
        option, value, place = draw.choice(options), draw.choice(VALUES), draw.randint(0, len(words))
        if option.strip("-") in HEAVY:
            value = draw.choice([each for each in VALUES if not each.isdecimal()])
        match draw.randint(0, 9):
            case 0 if words:
                del words[min(place, len(words) - 1)]
            case 1 if words:
                words.insert(place, draw.choice(words))
            case 2 if words:
                words[min(place, len(words) - 1)] = value
            case 3:
                words.append(value)
            case 4 | 5 | 6:
                words += [f"{option}={value}"]
            case _:
                words += [option, value]
    return [verb, *words, *ENDS.get(verb, "").split()]


@contextmanager
def _limited() -> Iterator[None]:
    def end(*_: object) -> None:
        raise TimeUpError

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run_lines(
    verb: str, seed: int, count: int, printed: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> list[tuple[list[str], str]]:
    """Runs lines of a verb; returns those that end otherwise than they should, and how."""
    draw, bad = random.Random(f"{verb} {seed}"), []
    options = _options(verb, printed)
    monkeypatch.setattr("webbrowser.open", lambda *_: True)
    monkeypatch.setattr(socket.socket, "listen", _no_server)
    for _ in range(count):
        words = _line(verb, options, draw)
        runs = sorted(Path("runs").glob("*/*"))
        printed()
        try:
            with _limited():
                code: object = main(words)
        except TimeUpError:
            code = f"no end after {SECONDS} s"
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException as error:
            code = "".join(traceback.format_exception(error)[-3:])
        text = printed()
        if code == 2 and (sum(line.startswith("error: ") for line in text.splitlines()) != 1 or "Traceback" in text):
            code = f"2, with {text[-300:]!r}"
        elif code == 2 and (left := {*Path("runs").glob("*/*")} - {*runs}):
            code = f"2, and left {left}"
        if code not in (0, 2):
            bad.append((words, str(code)))
    return bad


def _no_server(*_: object) -> None:
    raise OSError("no server in this test")


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_every_line_is_done_or_refused(
    verb: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)

    def printed() -> str:
        return "".join(capsys.readouterr())

    bad = run_lines(verb, 21, -(-LINES // len(VERBS)), printed, monkeypatch)
    assert not bad, "\n".join(f"{words}\n{code}" for words, code in bad)

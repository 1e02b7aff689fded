"""The entry script: `lightning-cnn VERB ...`. It only finds the verb's file and sets the exit code.

Exit codes: 0 done; 2 invalid input (one line `error: ...`); 1 a crash (traceback); 130, 143, 138 and 140
stopped by Ctrl-C, SIGTERM, SIGUSR1 and SIGUSR2. Nothing here imports torch, so that `--help`, `list` and `compare`
answer at once.
"""

import importlib
import os
import signal
import sys
import traceback
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType

from lightning_cnn import __version__
from lightning_cnn.cli.messages import as_typed
from lightning_cnn.cluster.launcher import is_first, is_first_here, launcher
from lightning_cnn.cluster.requeue import queue_again
from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.notes import printed
from lightning_cnn.plain_text import LAYOUT, escaped, plain_output
from lightning_cnn.resume.files import REASONS, REFUSED, storage_error
from lightning_cnn.resume.signals import Interrupted, handling_signals, ignore_signals
from lightning_cnn.user_code import LeavingWorkingDirectory

# verb: (file, help)
VERBS = {
    "train": ("train", "train, test the best checkpoint, print the metrics and the run folder"),
    "fit": ("train", "train without testing"),
    "validate": ("evaluate", "evaluate a checkpoint on the validation data"),
    "test": ("evaluate", "evaluate a checkpoint on the test data"),
    "predict": ("predict", "predict image files, or rank the stocks of a price file, as a CSV"),
    "export": ("export", "export a trained network to ONNX or torch.export, checked against torch"),
    "filters": ("filters", "draw filters, activation maps of an image, or what the filters look for"),
    "explain": ("explain", "show what a network's answers rest on: maps of images, lags of returns"),
    "show": ("show", "show training images of an experiment before and after augmentation"),
    "features": ("features", "write the features of a network's last hidden layer"),
    "probe": ("probe", "train a logistic regression, an SVM or k-NN on a file of features"),
    "walkforward": ("walkforward", "train and test on successive windows of months of returns"),
    "report": ("report", "evaluate predictions of returns: a table, figures, an HTML page"),
    "submit": ("submit", "train on a Slurm cluster, on several machines or with several seeds"),
    "sweep": ("sweep", "search for the settings with the best validation metric"),
    "list": ("list", "list architectures, data sets, experiments or runs"),
    "runs": ("runs", "tag, note or remove runs"),
    "compare": ("compare", "compare runs: metrics, and the settings in which they differ"),
    "benchmark": ("benchmark", "compare networks: size, speed, memory, and the accuracy of their runs"),
    "dashboard": ("dashboard", "open a local dashboard (TensorBoard) of all runs"),
}

TRAINING = ("train", "fit", "sweep", "walkforward")  # verbs that end in order when a signal asks for it


def main(argv: list[str] | None = None) -> int:
    """Runs one verb.

    Args:
        argv: The words after `lightning-cnn`; None takes them from the process.

    Returns:
        The exit code.
    """
    if argv is None:
        _open_closed()
        sys.excepthook = _show_crash
    with plain_output(), LeavingWorkingDirectory(), printed(as_typed):
        try:
            code = _run(sys.argv[1:] if argv is None else argv)
            sys.stdout.flush()
            if argv is None and "SLURM_STEP_ID" in os.environ:
                ignore_signals()  # one that comes while Python ends would make a failed job of one that is done
            return code
        except BrokenPipeError:  # the reader of our output went away, as `| head` does
            _print_no_more()
            return 0
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            what = f"can't write the output ({REASONS.get(error.errno, error.strerror)})"
            if error.filename:
                what = str(storage_error(Path(os.fsdecode(error.filename)), error))
            with suppress(OSError):
                print(f"error: {escaped(what)}", file=sys.stderr)
            _print_no_more()
            return 2


def _open_closed() -> None:
    """Opens standard streams that are closed (`2>&-`): the next file would get their numbers, and what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _print_no_more() -> None:
    """Keeps Python from trying once more at its end."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(words: list[str]) -> int:
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_help())
            return 0
        if words[0] == "--version":
            print(f"lightning-cnn {__version__}")
            return 0
        verb, rest = words[0], words[1:]
        if verb not in VERBS:
            raise UserError(f"unknown verb {verb!r}{did_you_mean(verb, VERBS) or '; see lightning-cnn --help'}")
        if VERBS[verb][0] in ("train", "evaluate", "walkforward", "sweep") and {"-h", "--help"} & set(rest):
            print(importlib.import_module("lightning_cnn.cli.help").training_help(verb))
            return 0
        launcher()  # processes that can't work together end before anything is made
        with handling_signals() if verb in TRAINING else nullcontext():
            command = importlib.import_module(f"lightning_cnn.cli.{VERBS[verb][0]}")
            return int(command.main(verb, rest))
    except Interrupted as stop:
        if is_first_here():
            print(f"stopped by {signal.Signals(stop.signum).name}", file=sys.stderr)
        if queue_again(stop.signum):
            return 0
        _say_how_to_go_on(stop, words[0])
        return 128 + stop.signum
    except UserError as error:
        if is_first_here():  # of several processes one speaks
            print(escaped(as_typed("; ".join([f"error: {error}", *_notes(error)]))), file=sys.stderr)
        return 2
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning makes an exit of a KeyboardInterrupt
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        print("stopped", file=sys.stderr)
        _say_how_to_go_on(stop, words[0])
        return 130


def _show_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    print(escaped("".join(traceback.format_exception(kind, error, trace)), LAYOUT), file=sys.stderr, end="")


def _say_how_to_go_on(stop: BaseException, verb: str) -> None:
    """Says what an interruption has left, where it is the first of several processes that was interrupted."""
    if verb in TRAINING and is_first():
        for line in _notes(stop) or ["nothing has been kept or changed"]:
            print(escaped(as_typed(line)), file=sys.stderr)


def _notes(error: BaseException) -> list[str]:
    """What the outermost command has noted with an exception: a fold is one of a walk-forward."""
    return getattr(error, "__notes__", [])[-1:]


def _help() -> str:
    verbs = "\n".join(f"  {verb:<11} {text}" for verb, (_, text) in VERBS.items())
    return f"""usage: lightning-cnn VERB [options]

{verbs}

Start here:
  lightning-cnn train --config digits_lenet5
  lightning-cnn train --data MNIST --model.architecture resnet18 --trainer.max_epochs 3
  lightning-cnn compare

`lightning-cnn VERB --help` explains a verb and its options."""

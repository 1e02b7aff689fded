"""The help of the verbs that train or test, in short and without the seconds that importing torch takes."""

import ast
import shutil
import textwrap
from collections.abc import Iterable, Sequence

from lightning_cnn.cli.parser import TRUST, VerbParser
from lightning_cnn.cli.slurm_options import add_slurm_options
from lightning_cnn.engine.catalogue import Option, data_modules, modules, options
from lightning_cnn.options import FACTS

NAME_WIDTH = 30  # of the left column
WIDEST = 110
# of options whose type says too little
METAVARS = {"search": "NAME=WHERE", "experiment": "NAME", "project": "NAME", "runs_dir": "DIR", "tags": "[A,B]"}

Lines = Sequence[tuple[str, str]]

ABOUT = {
    "train": "Trains, tests the best checkpoint, and prints the metrics and the run folder.",
    "fit": "Trains without testing.",
    "walkforward": "Trains and tests on successive windows of months, each test after its training, then joins the "
    "predictions and writes the report. Each fold is a run inside the folder of the walk-forward.",
    "sweep": "Trains with many settings and selects those with the best --checkpoint.monitor on the validation "
    "data. Each trial is a run, without a test; the best settings are written to best.yaml.",
    "validate": "Evaluates a checkpoint on the validation data.",
    "test": "Evaluates a checkpoint on the test data.",
}
EXAMPLES = {
    "train": (
        "train --config digits_lenet5",
        "train --data MNIST --model.architecture resnet18 --trainer.max_epochs 3",
    ),
    "fit": ("fit --config digits_lenet5 --model.lr 0.01",),
    "walkforward": (
        "walkforward --config returns_point_in_time --data.prices prices.parquet --jobs 2",
        "walkforward --resume ID",
    ),
    "sweep": (
        "sweep --config digits_lenet5 --search 'model.lr=log(1e-4,1e-1)' "
        "--search 'data.batch_size=[32,128]' --trials 40 --jobs 2",
        "sweep --config digits_lenet5 --config sweeps/digits_lenet5",
        "sweep --resume digits_lenet5_sweep",
        "train --config runs/digits_lenet5_sweep/best.yaml",
    ),
    "validate": ("validate --ckpt_path runs/EXPERIMENT/RUN/checkpoints/best.ckpt",),
    "test": ("test --ckpt_path runs/EXPERIMENT/RUN/checkpoints/best.ckpt",),
}
TRAINS = ("train", "fit", "walkforward", "sweep")

WHAT: Lines = (
    (
        "--config NAME|FILE",
        "shipped experiment (`lightning-cnn list experiments`) or YAML file; repeatable. Later files override earlier "
        "ones, options override files",
    ),
    (
        "--model NAME",
        "the task: {models}, or your own as my_file.MyModule (default: the first; for returns ReturnClassifier)",
    ),
    ("--data NAME", "the data set: {data}, or your own as my_file.MyData"),
)
TRUSTED = ("--trust MODULE", TRUST)
SEED = ("--seed_everything INT", "seed of all random number generators")
PRINT = ("--print_config", "print the resolved configuration and exit")
RESUME = ("--resume RUN", "resume an interrupted run, in its own folder")
AGAIN: Lines = (SEED, ("--ckpt_path FILE", "checkpoint to start from"), RESUME, TRUSTED, PRINT)
CKPT_PATH = ("--ckpt_path FILE", "the checkpoint; it sets the model and the data, which options override")
CHECKPOINT: Lines = (CKPT_PATH, TRUSTED, SEED, PRINT)
MACHINE: Lines = (
    ("--trainer.accelerator auto|cpu|gpu", "hardware to compute on"),
    ("--trainer.devices auto|INT|[0,2]", "number of devices, or their indices"),
    ("--trainer.num_nodes INT", "number of machines"),
    ("--trainer.strategy NAME", "how to distribute training over devices: auto, ddp, fsdp, ..."),
    ("--trainer.precision NAME", "32-true, bf16-mixed, 16-mixed, ..."),
)
COURSE: Lines = (
    ("--trainer.max_epochs INT", "number of epochs"),
    ("--trainer.accumulate_grad_batches INT", "batches per optimizer step"),
    ("--trainer.gradient_clip_val FLOAT", "maximum norm of the gradient"),
    ("--trainer.limit_train_batches FLOAT", "share or number of batches per epoch, for quick trials"),
    ("--trainer.fast_dev_run true|INT", "train and validate on one batch, or INT batches, without saving a run"),
    ("--trainer.callbacks+=NAME", "add a callback, such as EarlyStopping, LearningRateMonitor or EMAWeightAveraging"),
    ("--trainer.callbacks.OPTION", "an option of the callback named last, such as --trainer.callbacks.patience 5"),
)


def training_help(verb: str) -> str:
    """The short help of a verb that trains or tests.

    Args:
        verb: The verb.
    """
    trains = verb in TRAINS
    data, models = ([entry.name for entry in found] for found in (data_modules(), modules()))
    what = [(name, text.format(data=", ".join(data), models=", ".join(models))) for name, text in WHAT]
    width = min(shutil.get_terminal_size().columns, WIDEST)
    example = "\n".join(["for example:", *(f"  lightning-cnn {example}" for example in EXAMPLES[verb])])
    parts: list[tuple[str, Lines]] = [("what", what)]
    if verb == "walkforward":
        folds = [*options("MonthSplit", "evaluation"), *options("WalkForwardSettings", "engine/walkforward")]
        parts.append(("folds", _lines("", folds)))
    if verb == "sweep":
        launcher = ("--launcher local|slurm", "where to train: in processes of this machine, or in --jobs Slurm jobs")
        parts.append(("sweep", [*_lines("", options("SweepSettings", "engine/sweep")), launcher]))
        actions = add_slurm_options(VerbParser(verb, ""))._actions[1:]  # the first is --help
        words = ["" if action.nargs == 0 else f" {action.metavar or 'VALUE'}" for action in actions]
        jobs = [(f"{each.option_strings[0]}{word}", str(each.help)) for each, word in zip(actions, words, strict=True)]
        parts.append(("jobs of a cluster, with --launcher slurm", jobs))
    parts.append(("run", AGAIN if trains else CHECKPOINT))
    if trains:
        learned = _class_lines("model", "modules", models[0], models[1:])
        *tracking, timeout = _lines("", options("Tracking", "config"))
        parts += [("tracking", tracking), ("model", learned)]
    for title, base in (("data, images", "ImageDataModule"), ("data, returns", "MonthlyReturns")):
        names = [entry.name for entry in data_modules((base,))]
        parts.append((title, _class_lines("data", "datamodules", base, names)))
    if trains:
        parts += [("training", COURSE), ("checkpoints", _lines("checkpoint", options("Checkpoints", "resume")))]
    parts.append(("machine", [*MACHINE, timeout] if trains else MACHINE))
    sections = [_section(title, lines, width) for title, lines in parts]
    end = "--help_all shows every option, Lightning's Trainer included."
    return "\n\n".join([f"usage: lightning-cnn {verb} [options]", ABOUT[verb], example, *sections, end])


def _class_lines(group: str, folder: str, base: str, others: Sequence[str]) -> list[tuple[str, str]]:
    """The options of one class, with a note for which other ones they are not, and what these have besides."""
    told = FACTS if group == "model" else ()
    shared = [option for option in options(base, folder) if option.name not in told]
    own = {name: [option for option in options(name, folder) if option.name not in told] for name in others}
    lines = []
    for option in shared:
        without = [name for name, found in own.items() if option.name not in {other.name for other in found}]
        note = f" Not for {', '.join(without)}." if without else ""
        lines.append((_name(group, option), _text(option) + note))
    besides: dict[tuple[str, str], list[str]] = {}
    for name, found in own.items():
        for option in found:
            if option.name not in {other.name for other in shared}:
                besides.setdefault((_name(group, option), _text(option)), []).append(name)
    return lines + [(name, f"{', '.join(classes)}: {text}") for (name, text), classes in besides.items()]


def _name(group: str, option: Option) -> str:
    return f"--{f'{group}.{option.name}'.lstrip('.')} {METAVARS.get(option.name) or _metavar(option.annotation)}"


def _lines(group: str, listed: Iterable[Option]) -> list[tuple[str, str]]:
    return [(_name(group, option), _text(option)) for option in listed]


def _text(option: Option) -> str:
    """The description and the default, as one types it."""
    if option.default is None:
        return f"{option.description} (required)"
    if option.default == "None":
        return option.description
    try:
        default = ast.literal_eval(option.default)
    except ValueError:  # a constant with a name
        default = option.default
    typed = str(default).lower() if isinstance(default, bool) else default if default != "" else '""'
    return f"{option.description} (default: {typed})".strip()


def _metavar(annotation: str) -> str:
    """What to type for a type: `int | None` gives INT, `Literal['a', 'b']` gives a|b."""
    if "Literal[" in annotation:
        inside = annotation.partition("Literal[")[2].partition("]")[0]
        return "|".join(part.strip(" '\"") for part in inside.split(","))
    kind = annotation.partition("[")[0].partition(" | ")[0].strip("'\"")
    known = {"bool": "true|false", "str": "TEXT", "int": "INT", "float": "FLOAT", "Path": "FILE", "list": "[...]"}
    return known.get(kind, "{...}" if kind.endswith(("dict", "Options", "Mapping")) else "VALUE")


def _section(title: str, lines: Lines, width: int) -> str:
    """Names to the left, wrapped texts to the right; a long name has a line to itself."""
    out = [f"{title}:"]
    indent = " " * (NAME_WIDTH + 2)
    for name, text in lines:
        wrapped = textwrap.wrap(text, max(30, width - len(indent))) or [""]
        if len(name) + 2 <= NAME_WIDTH:
            out.append(f"  {name}".ljust(len(indent)) + wrapped.pop(0))
        else:
            out.append(f"  {name}")
        out += [indent + line for line in wrapped]
    return "\n".join(line.rstrip() for line in out)

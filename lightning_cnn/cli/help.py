"""The help of the verbs that train or test, in short and without the seconds that importing torch takes."""

import ast
import shutil
import textwrap
from collections.abc import Iterable, Sequence

from lightning_cnn.cli.slurm_options import slurm_parser
from lightning_cnn.engine.catalogue import Option, data_modules, modules, options

NAME_WIDTH = 30  # of the left column
WIDEST = 110
# the data says these to the model
LINKED = ("num_classes", "in_channels", "image_size", "lags", "window_length")

Lines = Sequence[tuple[str, str]]

ABOUT = {
    "train": "Trains, tests the best checkpoint, and prints the result and the run folder.",
    "fit": "Trains, without the test.",
    "walkforward": "Trains and tests on windows of months, each test after its training; joins the predictions and "
    "writes the report. Each fold is a run of its own in the folder of the walk-forward.",
    "sweep": "Trains again and again with other settings, and keeps those whose --checkpoint.monitor is best on the "
    "validation data. Each trial is a run of its own, without a test; the best settings go into best.yaml.",
    "validate": "Measures a checkpoint on the validation data.",
    "test": "Measures a checkpoint on the test data.",
}
EXAMPLES = {
    "train": (
        "train --config experiments/digits_lenet5.yaml",
        "train --data MNIST --model.architecture resnet18 --trainer.max_epochs 3",
    ),
    "fit": ("fit --config experiments/digits_lenet5.yaml --model.lr 0.01",),
    "walkforward": (
        "walkforward --config experiments/returns_honest.yaml --data.prices prices.parquet --jobs 2",
        "walkforward --resume ID",
    ),
    "sweep": (
        "sweep --config experiments/digits_lenet5.yaml --search 'model.lr=log(1e-4,1e-1)' "
        "--search 'data.batch_size=[32,128]' --trials 40 --jobs 2",
        "sweep --resume digits_lenet5_sweep",
        "train --config runs/digits_lenet5_sweep/best.yaml",
    ),
    "validate": ("validate --ckpt_path runs/EXPERIMENT/RUN/checkpoints/best.ckpt",),
    "test": ("test --ckpt_path runs/EXPERIMENT/RUN/checkpoints/best.ckpt",),
}
TRAINS = ("train", "fit", "walkforward", "sweep")

WHAT: Lines = (
    ("--config FILE", "settings in YAML; may be repeated, the later wins, and what is typed beats both"),
    (
        "--model NAME",
        "what learns: {models} (default: the first, from returns ReturnClassifier), or yours: my_file.MyModule",
    ),
    ("--data NAME", "what it learns from: {data}, or a class of your own"),
)
TRACKING: Lines = (
    ("--experiment NAME", "name of the experiment: the run folder is RUNS_DIR/EXPERIMENT/ID"),
    ("--runs_dir DIR", "folder of all runs (default: $LIGHTNING_CNN_RUNS or runs)"),
    ("--tags [A,B]", "words to find the run by on W&B"),
    ("--wandb auto|online|offline|disabled", "whether to track on W&B; auto: online with a login, offline without"),
    ("--project NAME", "the project on W&B"),
)
WALK: Lines = (
    ("--jobs INT", "folds that are trained at the same time, in processes (default: 1)"),
    ("--cost_bps FLOAT", "of the report: cost of trading, in basis points of its value (default: 10)"),
    ("--deciles INT", "of the report: number of groups of stocks (default: 10)"),
    ("--block_months INT", "of the report: months of a block of the bootstrap (default: 6)"),
    ("--note TEXT", "of the report: caveat shown at its top, such as a bias of the data"),
)
AGAIN: Lines = (
    ("--seed_everything INT", "seed of every random draw"),
    ("--ckpt_path FILE", "checkpoint to go on from"),
    ("--resume RUN", "go on with an interrupted run, in its own folder"),
    (
        "--trust MODULE",
        "let checkpoints and runs from outside your runs directories import MODULE, which runs its code",
    ),
    ("--print_config", "print the whole configuration and stop"),
)
CHECKPOINT: Lines = (
    ("--ckpt_path FILE", "the checkpoint; it says which model and data, what is typed here beats it"),
    (
        "--trust MODULE",
        "let checkpoints and runs from outside your runs directories import MODULE, which runs its code",
    ),
    ("--seed_everything INT", "seed of every random draw"),
    ("--print_config", "print the whole configuration and stop"),
)
MACHINE: Lines = (
    ("--trainer.accelerator auto|cpu|gpu", "what to compute on"),
    ("--trainer.devices auto|INT|[0,2]", "how many devices, or which"),
    ("--trainer.num_nodes INT", "how many machines"),
    ("--trainer.strategy NAME", "how several devices work together: auto, ddp, fsdp, ..."),
    ("--timeout_minutes FLOAT", "how long a process waits for another, before it is named and given up (default: 30)"),
    ("--trainer.precision NAME", "32-true, bf16-mixed, 16-mixed, ..."),
)
COURSE: Lines = (
    ("--trainer.max_epochs INT", "how long to train"),
    ("--trainer.accumulate_grad_batches INT", "batches per optimizer step"),
    ("--trainer.gradient_clip_val FLOAT", "longest gradient"),
    ("--trainer.limit_train_batches FLOAT", "share or number of the batches of an epoch, to try something out"),
    ("--trainer.fast_dev_run true|INT", "train and validate on one batch, or so many, and keep nothing"),
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
    sections = [
        f"usage: lightning-cnn {verb} [options]",
        ABOUT[verb],
        "\n".join(["for example:", *(f"  lightning-cnn {example}" for example in EXAMPLES[verb])]),
        _section("what", what, width),
        _section("run", AGAIN if trains else CHECKPOINT, width),
    ]
    if verb == "walkforward":
        split = [
            (f"--{option.name} {_metavar(option.annotation)}", _text(option))
            for option in options("MonthSplit", "evaluation")
        ]
        sections.insert(-1, _section("folds", [*split, *WALK], width))
    if verb == "sweep":
        search = [
            (
                "--search NAME=WHERE" if option.name == "search" else f"--{option.name} {_metavar(option.annotation)}",
                _text(option),
            )
            for option in options("SweepSettings", "engine/sweep")
        ]
        launcher = ("--launcher local|slurm", "where: in processes of this machine, or in --jobs jobs of a cluster")
        sections.insert(-1, _section("sweep", [*search, launcher], width))
        jobs = [
            (
                action.option_strings[0] + ("" if action.nargs == 0 else f" {action.metavar or 'VALUE'}"),
                str(action.help),
            )
            for action in slurm_parser(verb)._actions[1:]  # the first is --help
        ]
        sections.insert(-1, _section("jobs of a cluster, with --launcher slurm", jobs, width))
    if trains:
        sections.append(_section("tracking", TRACKING, width))
        sections.append(_section("model", _class_lines("model", "modules", models[0], models[1:]), width))
    for title, base in (("data, images", "ImageDataModule"), ("data, returns", "MonthlyReturns")):
        names = [entry.name for entry in data_modules((base,))]
        sections.append(_section(title, _class_lines("data", "datamodules", base, names), width))
    if trains:
        sections.append(_section("training", COURSE, width))
        kept = options("Checkpoints", "resume")
        sections.append(_section("checkpoints", _lines("checkpoint", kept), width))
    sections.append(_section("machine", MACHINE, width))
    sections.append("--help_all shows every option, Lightning's Trainer included.")
    return "\n\n".join(sections)


def _class_lines(group: str, folder: str, base: str, others: Sequence[str]) -> list[tuple[str, str]]:
    """The options of one class, with a note for which other ones they are not, and what these have besides."""
    told = LINKED if group == "model" else ()
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
    return f"--{group}.{option.name} {_metavar(option.annotation)}"


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

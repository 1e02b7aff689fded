"""`lightning-cnn benchmark`: networks by their size, their speed, the memory they need, and their accuracy."""

import argparse
import csv
import fnmatch
import io
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_cnn.cli.parser import VerbParser
from lightning_cnn.cli.tables import text_table
from lightning_cnn.engine import catalogue
from lightning_cnn.engine.benchmark.runs import Result, Shape, best_result, choose, read_results, shape_of
from lightning_cnn.errors import UserError, did_you_mean
from lightning_cnn.plain_text import as_cell
from lightning_cnn.resume.files import make_folder, replace_text
from lightning_cnn.tracking.comparison.rows import better
from lightning_cnn.tracking.run import default_runs_dir
from lightning_cnn.tracking.selection import all_runs, select_runs

if TYPE_CHECKING:  # torch only where something is measured: --help answers at once
    from lightning_cnn.engine.benchmark.measure import Conditions, Measurement

Row = dict[str, Any]  # a line of table.csv
MEANING = """operations: inference of one image, matrix products and convolutions; a multiply-add counts as two
memory: of a training step, {memory}"""
ELSEWHERE = "choose another place with --output"
ON_GPU = "the most that a step allocates"
ON_CPU = "counted: parameters, their gradients, and what a step keeps for its backward pass"


def main(verb: str, argv: list[str]) -> int:
    """Measures networks and writes the table and the charts.

    Args:
        verb: `benchmark`.
        argv: The words after it.

    Raises:
        UserError: If a name is unknown, none of the networks can be made, there are runs on several data sets, or the
            results can't be written.
    """
    args = _parser(verb).parse_args(argv)
    names = find_architectures(args.architectures, args.most)
    runs = select_runs(args.experiments, args.runs_dir) if args.experiments else all_runs(args.runs_dir)
    if better(args.metric, [run for run in runs if args.metric in run.record.metrics]) != "max":
        raise UserError(
            f"--metric {args.metric}: the charts need a metric for which higher is better, such as test/acc"
        )
    typed = (args.image_size, args.in_channels, args.num_classes)
    results, typed, notes = choose(read_results(runs, names, args.metric), args.data, typed, args.metric)
    _say(notes)
    make_folder(args.output, ELSEWHERE)

    conditions = _conditions(args)
    measurements = _measure([(name, shape_of(name, results, typed)) for name in names], conditions)
    rows = [_row(measurement, conditions, results, args.metric) for measurement in measurements]
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        print(_text(rows, args.metric))
    _write(args.output, rows, args.metric)
    return 0


def find_architectures(words: Sequence[str], most: int) -> list[str]:
    """The networks that are meant, each once: names, patterns, and files of the user's own with a dot in them.

    Args:
        words: What was typed.
        most: More than so many are an error.

    Raises:
        UserError: If there is no such network, or a pattern has too many.
    """
    known = [entry.name for entry in (*catalogue.architectures(), *catalogue.timm_networks())]
    found: list[str] = []
    for word in words:
        matching = fnmatch.filter(known, word) if any(sign in word for sign in "*?[") else [word]
        # a dot: a file of the user's own, or a tag of timm as in resnet18.a1_in1k
        if not matching or ("." not in word and not set(matching) <= set(known)):
            hint = did_you_mean(word.strip("*"), known) or "; `lightning-cnn list architectures` shows all"
            raise UserError(f"unknown architecture {word!r}{hint}")
        found += matching
    found = list(dict.fromkeys(found))
    if len(found) > most:
        raise UserError(f"these are {len(found)} networks, more than --most {most}: name fewer, or raise it")
    return found


def _parser(verb: str) -> VerbParser:
    parser = VerbParser(
        verb,
        "Measures networks: parameters, operations, images per second, memory, and what accuracy their runs reached. "
        "Writes a table and two charts, accuracy against operations and accuracy per parameter "
        "(after Canziani et al. 2017).",
    )
    parser.add_argument(
        "architectures",
        nargs="+",
        metavar="ARCHITECTURE",
        help="a name of `lightning-cnn list architectures`, any of timm's, a pattern such as 'vgg1?', "
        "or my_file.my_network",
    )
    parser.add_argument("--data", metavar="NAME", help="measure on the images of this data set, by the runs on it")
    parser.add_argument("--experiments", nargs="+", metavar="NAME", help="take accuracies only from these, as compare")
    parser.add_argument("--metric", default="test/acc", metavar="NAME", help="the accuracy: the best of all runs")
    parser.add_argument("--runs_dir", type=Path, default=default_runs_dir(), metavar="DIR", help="folder of all runs")
    usual = "; default: those of --data, else"
    parser.add_argument(
        "--image_size", type=_count, metavar="N", help=f"side of the images in pixels, or length of windows{usual} 224"
    )
    parser.add_argument("--in_channels", type=_count, metavar="N", help=f"channels of the images{usual} 3")
    parser.add_argument("--num_classes", type=_count, metavar="N", help=f"number of classes{usual} 1000")
    parser.add_argument("--batch_size", type=_count, default=16, metavar="N", help="images in a batch")
    parser.add_argument("--seconds", type=_seconds, default=1.0, metavar="S", help="time for each speed")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="what to compute on")
    parser.add_argument("--precision", choices=("32", "bf16"), default="32", help="bf16: bfloat16 by autocast")
    parser.add_argument("--channels_last", action="store_true", help="images lie in memory with the channels last")
    parser.add_argument("--compile", action="store_true", help="compile the networks with torch.compile")
    parser.add_argument("--most", type=_count, default=20, metavar="N", help="refuse to measure more networks")
    parser.add_argument("--output", type=Path, default=Path("benchmark"), metavar="DIR", help="where to write")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _conditions(args: argparse.Namespace) -> "Conditions":
    import torch

    from lightning_cnn.engine.benchmark.measure import Conditions

    has_cuda = torch.cuda.is_available()
    if args.device == "cuda" and not has_cuda:
        raise UserError(f"--device cuda: torch {torch.__version__} finds no CUDA device here; take --device cpu")
    device = torch.device("cuda" if has_cuda and args.device != "cpu" else "cpu")
    bf16 = args.precision == "bf16"
    return Conditions(device, args.batch_size, args.seconds, bf16, args.channels_last, args.compile)


def _measure(asked: Sequence[tuple[str, Shape]], conditions: "Conditions") -> list["Measurement"]:
    """Measures the networks that can be made; a line on stderr for each other one.

    Raises:
        UserError: If there is none.
    """
    from tqdm import tqdm

    from lightning_cnn.engine.benchmark.measure import measure
    from lightning_cnn.modules.network import REFUSALS

    found, notes, refused = [], [], []
    for name, shape in (bar := tqdm(asked, desc="Measuring", leave=False, disable=None)):
        bar.set_postfix_str(name)
        try:
            found.append(measure(name, shape, conditions))
            notes += found[-1].notes
        except (UserError, MemoryError, *REFUSALS) as error:
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            # the sentences of create_network are those of train; here the options have no class in front
            reason = reason.replace("--model.architecture ", "").replace("--data.image_size", "--image_size")
            refused.append(reason if isinstance(error, UserError) else f"{name} can't be made: {reason}")
    if not found:
        others = f" (and {len(refused) - 1} more that can't be measured)" if len(refused) > 1 else ""
        raise UserError(f"{refused[0]}{others}")
    _say([*(f"left out: {reason}" for reason in refused), *notes])
    return found


def _row(measurement: "Measurement", conditions: "Conditions", results: Sequence[Result], metric: str) -> Row:
    shape = measurement.shape
    best, strangers = best_result(results, measurement.architecture, shape, measurement.parameters)
    if strangers:
        _say([f"{measurement.architecture}: runs with another number of parameters left out: "
              f"{', '.join(result.run for result in strangers)}"])  # fmt: skip
    return {
        "architecture": measurement.architecture,
        "image_size": shape.image_size,
        "in_channels": shape.in_channels,
        "num_classes": shape.num_classes,
        "parameters": measurement.parameters,
        "operations": measurement.operations,
        "batch_size": conditions.batch_size,
        "device": _device_name(conditions),
        "precision": "bf16" if conditions.bf16 else "32",
        "channels_last": conditions.channels_last,
        "compile": conditions.compile,
        "inference_images_per_s": measurement.images_per_s.get("inference"),
        "training_images_per_s": measurement.images_per_s.get("training"),
        "memory_bytes": measurement.memory,
        metric: best.value if best else None,
        "data": best.data if best else None,
        "run": best.run if best else None,
    }


def _device_name(conditions: "Conditions") -> str:
    import torch

    if conditions.on_gpu:
        return torch.cuda.get_device_name(conditions.device)
    threads = torch.get_num_threads()
    return f"cpu ({threads} thread{'s' if threads > 1 else ''})"


def _text(rows: Sequence[Row], metric: str) -> str:
    """The table, under a line that says how it was measured, over what its columns mean."""
    from lightning_cnn.figures.benchmark import short
    from lightning_cnn.modules.network import input_shape

    first = rows[0]
    with_accuracy = any(row[metric] is not None for row in rows)
    data = next((row["data"] for row in rows if row["data"]), "")
    header = ["architecture", "images", "classes", "parameters", "operations", "inference", "training", "memory"]
    lines = [header + [f"{metric} ({data})"] * with_accuracy]
    for row in rows:
        cells = [
            row["architecture"],
            "x".join(map(str, input_shape(row["architecture"], row["in_channels"], row["image_size"]))),
            str(row["num_classes"]),
            short(row["parameters"]),
            short(row["operations"]),
            _or_dash(row["inference_images_per_s"], "{:,.1f}/s"),
            _or_dash(row["training_images_per_s"], "{:,.1f}/s"),
            _or_dash(row["memory_bytes"] and row["memory_bytes"] / 2**20, "{:,.1f} MiB"),
        ]
        lines.append(cells + [_or_dash(row[metric], "{:.4f}")] * with_accuracy)
    how = [first["device"], f"batches of {first['batch_size']}", f"precision {first['precision']}"]
    how += [word for word in ("channels_last", "compile") if first[word]]
    meaning = MEANING.format(memory=ON_CPU if first["device"].startswith("cpu") else ON_GPU)
    return f"{', '.join(how)}\n\n{text_table(lines, right=[False] + [True] * 8)}\n\n{meaning}"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _write(folder: Path, rows: Sequence[Row], metric: str) -> None:
    from lightning_cnn.figures.benchmark import draw
    from lightning_cnn.figures.plots import save

    without = [row["architecture"] for row in rows if row[metric] is None]
    if len(without) == len(rows):
        _say([f"no {metric} of these networks on such images: the chart shows images per second instead"])
    elif without:
        _say([f"not in the charts, there is no {metric} of it: {', '.join(without)}"])
    paths = [folder / "table.csv"]
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys())
    writer.writeheader()
    writer.writerows({name: as_cell(value) for name, value in row.items()} for row in rows)
    replace_text(paths[0], text.getvalue(), ELSEWHERE)
    for name, figure in draw(rows, metric).items():
        paths.append(folder / name)
        save(figure, paths[-1], ELSEWHERE)
    _say([f"wrote {', '.join(map(str, paths))}"])


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)

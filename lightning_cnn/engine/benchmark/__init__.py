"""Networks by their size, their speed, the memory they need, and their accuracy."""

import fnmatch
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning_cnn.engine import catalogue
from lightning_cnn.engine.benchmark.runs import Result, Shape, best_result, choose, read_results, shape_of
from lightning_cnn.errors import UserError, check, did_you_mean, first_line
from lightning_cnn.notes import say
from lightning_cnn.tracking.comparison import better
from lightning_cnn.tracking.record import default_runs_dir
from lightning_cnn.tracking.selection import all_runs, select_runs

if TYPE_CHECKING:  # torch only where something is measured: a mistyped name is refused at once
    from pandas import DataFrame

    from lightning_cnn.engine.benchmark.measurement import Conditions, Measurement


def benchmark(
    architectures: Sequence[str] | str,
    *,
    data: str | None = None,
    experiments: Sequence[str] = (),
    metric: str = "test/acc",
    runs_dir: Path | str | None = None,
    image_size: int | None = None,
    in_channels: int | None = None,
    num_classes: int | None = None,
    batch_size: int = 16,
    seconds: float = 1.0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["32", "bf16"] = "32",
    channels_last: bool = False,
    compile: bool = False,
    most: int = 20,
) -> "DataFrame":
    """Measures networks: parameters, operations, throughput, memory, and the best accuracy of their runs.

    After Canziani et al., "An analysis of deep neural network models for practical applications" (2017).

    Args:
        architectures: Names of `lightning-cnn list architectures` or of timm, patterns such as 'vgg1?', or
            my_file.my_network.
        data: Data set whose images are used for measurement, and whose runs are compared.
        experiments: Take accuracies only from these runs, named as for `compare`.
        metric: Metric for the accuracy: the best of all runs.
        runs_dir: Folder of all runs (default: $LIGHTNING_CNN_RUNS or runs).
        image_size: Side of the images in pixels, or length of windows (default: those of the data, else 224).
        in_channels: Channels of the images (default: those of the data, else 3).
        num_classes: Number of classes (default: those of the data, else 1000).
        batch_size: Images per batch.
        seconds: Duration of each measurement in seconds.
        device: Device to compute on.
        precision: 32, or bf16 (bfloat16 autocast).
        channels_last: Store images in the channels-last memory format.
        compile: Compile the networks with torch.compile.
        most: Maximum number of networks to measure.

    Returns:
        One row per network, with the columns `architecture`, `image_size`, `in_channels`, `num_classes`, `parameters`,
        `operations` (of the inference of one image, a multiply-add counts as two), `batch_size`, `device`, `precision`,
        `channels_last`, `compile`, `inference_images_per_s`, `training_images_per_s`, `memory_bytes` (of a training
        step), the metric, `data` and `run`; None where there is no such number.

    Raises:
        UserError: If a name is unknown, none of the networks can be made, or there are runs on several data sets.
    """
    sides = {"image_size": image_size, "in_channels": in_channels, "num_classes": num_classes}
    for name, value in ({"batch_size": batch_size, "most": most} | sides).items():
        if value is not None:
            check(name, value, least=1)
    check("seconds", seconds, above=0)
    names = find_architectures([architectures] if isinstance(architectures, str) else architectures, most)
    folder = Path(runs_dir or default_runs_dir())
    runs = select_runs(experiments, folder) if experiments else all_runs(folder)
    measured_runs = [run for run in runs if metric in run.record.metrics]
    direction = better(metric, measured_runs)
    if direction == "min" or (measured_runs and direction != "max"):
        raise UserError(f"`metric` {metric}: the charts need a metric for which higher is better, such as test/acc")
    results, typed = choose(read_results(runs, names, metric), data, (image_size, in_channels, num_classes), metric)
    from pandas import DataFrame

    from lightning_cnn.engine.benchmark.measurement import Conditions, find_device

    conditions = Conditions(find_device(device), batch_size, seconds, precision == "bf16", channels_last, compile)
    measured = _measure([(name, shape_of(name, results, typed)) for name in names], conditions)
    rows = [_row(measurement, conditions, results, metric) for measurement in measured]
    return DataFrame(rows, dtype=object).infer_objects()  # numbers stay whole where one is missing


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
            hint = did_you_mean(word.strip("*"), known) or "; `list_architectures()` shows all"
            raise UserError(f"unknown architecture {word!r}{hint}")
        found += matching
    found = list(dict.fromkeys(found))
    if len(found) > most:
        raise UserError(f"{len(found)} networks exceed `most` {most}: name fewer, or increase it")
    return found


def _measure(asked: Sequence[tuple[str, Shape]], conditions: "Conditions") -> list["Measurement"]:
    """Measures the networks that can be made; a note for each other one.

    Raises:
        UserError: If there is none.
    """
    from tqdm import tqdm

    from lightning_cnn.engine.benchmark.measurement import measure
    from lightning_cnn.modules.network import REFUSALS

    found, notes, refused = [], [], []
    for name, shape in (bar := tqdm(asked, desc="Measuring", leave=False, disable=None)):
        bar.set_postfix_str(name)
        try:
            found.append(measure(name, shape, conditions))
            notes += found[-1].notes
        except (UserError, MemoryError, *REFUSALS) as error:
            # the sentences of create_network are those of train; here the options have no class in front
            reason = first_line(error).replace("`model.architecture` ", "").replace("`data.image_size`", "`image_size`")
            refused.append(reason if isinstance(error, UserError) else f"{name} can't be made: {reason}")
    if not found:
        others = f" (and {len(refused) - 1} more that can't be measured)" if len(refused) > 1 else ""
        raise UserError(f"{refused[0]}{others}")
    for line in (*(f"skipped: {reason}" for reason in refused), *notes):
        say(line, is_warning=True)
    return found


def _row(
    measurement: "Measurement", conditions: "Conditions", results: Sequence[Result], metric: str
) -> dict[str, Any]:
    shape = measurement.shape
    best, strangers = best_result(results, measurement.architecture, shape, measurement.numbers)
    if strangers:
        others = ", ".join(result.run for result in strangers)
        say(f"{measurement.architecture}: skipped runs with another number of parameters: {others}", is_warning=True)
    return {
        "architecture": measurement.architecture,
        **asdict(shape),
        "parameters": measurement.parameters,
        "operations": measurement.operations,
        "batch_size": conditions.batch_size,
        "device": conditions.device_name,
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

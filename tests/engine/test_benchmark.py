import csv
import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from run_folders import write_run
from torch import nn

from lightning_cnn.architectures.arithmetic import cost
from lightning_cnn.cli import main
from lightning_cnn.engine.benchmark import measurement as benchmark_measure
from lightning_cnn.engine.benchmark.measurement import Conditions, measure, step_bytes, total_loss
from lightning_cnn.engine.benchmark.runs import Shape
from lightning_cnn.figures.benchmark import benchmark_figures, short
from lightning_cnn.modules.network import create_network

QUICK = ("--device", "cpu", "--batch_size", "2", "--seconds", "0.001")
CIFAR = ("--image_size", "32", "--num_classes", "10")
CPU = Conditions(torch.device("cpu"), batch_size=2, seconds=0.001)
COLUMNS = """architecture image_size in_channels num_classes parameters operations batch_size device precision
channels_last compile inference_images_per_s training_images_per_s memory_bytes test/acc data run"""


def trained(
    name: str,
    architecture: str,
    accuracy: float,
    parameters: int,
    data: str = "CIFAR10",
    shape: tuple[int, int, int] | None = (32, 3, 10),
    **data_options: str,
) -> None:
    """A run as a training leaves it: image size, channels and classes stand in its checkpoint only."""
    config = {
        "model": {"architecture": architecture},
        "data": {"class_path": f"lightning_cnn.datamodules.{data}", "init_args": data_options},
    }
    folder = write_run(Path("runs"), name, config, [(1.0, 0.5)], parameters=parameters, metrics={"test/acc": accuracy})
    if shape:
        (folder / "checkpoints").mkdir()
        arguments = dict(zip(("image_size", "in_channels", "num_classes"), shape, strict=True))
        state = {"network.all": torch.zeros(parameters), "decoder.weight": torch.zeros(7)}
        torch.save({"hyper_parameters": arguments, "state_dict": state}, folder / "checkpoints" / "last.ckpt")


def benchmark(*words: str) -> dict[str, dict[str, str]]:
    """Measures; the lines of the CSV by architecture."""
    assert main(["benchmark", *QUICK, *words]) == 0
    return table()


def table(folder: str = "benchmark") -> dict[str, dict[str, str]]:
    with (Path(folder) / "table.csv").open(newline="") as file:
        return {row["architecture"]: row for row in csv.DictReader(file)}


# operations by hand: twice the multiply-adds of the layers
@pytest.mark.parametrize(
    ("architecture", "shape", "parameters", "operations"),
    [
        ("linear", Shape(28, 1, 10), 7_850, 2 * 784 * 10),
        ("mlp_cifar", Shape(32, 3, 10), 3_590_642, 2 * (3072 * 1000 + 1000 * 512 + 512 * 10)),
        (
            "resnet20_cifar",
            Shape(32, 3, 10),
            269_722,
            2 * (1024 * 9 * (3 * 16 + 6 * 16 * 16) + 2 * (256 * 9 * (16 * 32 + 5 * 32 * 32)) + 64 * 10),
        ),
    ],
)
def test_parameters_and_operations_are_exact(architecture: str, shape: Shape, parameters: int, operations: int) -> None:
    found = measure(architecture, shape, CPU)
    assert (found.parameters, found.operations) == (parameters, operations)
    assert found.notes == []
    assert found.images_per_s["inference"] > 0
    assert found.images_per_s["training"] > 0


@pytest.mark.parametrize(("architecture", "multiply_adds"), [("resnet18", 1.81e9), ("mobilenetv2_100", 0.30e9)])
def test_operations_are_twice_the_multiply_adds_of_the_papers(architecture: str, multiply_adds: float) -> None:
    network = create_network(architecture, 1000, 3, 224)
    assert cost(network, (3, 224, 224)).multiply_adds == pytest.approx(multiply_adds, rel=0.01)


def test_attention_counts_too() -> None:
    class Attention(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x)

    # scores and their product with the values: 2 heads, 5 x 5 x 8 multiply-adds each
    assert cost(Attention(), (2, 5, 8)).multiply_adds == 2 * 2 * 5 * 5 * 8


def test_memory_is_weights_gradients_and_what_the_backward_pass_needs() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 5))
    weights, each = step_bytes(network, torch.randn(4, 3, 2, 2))
    assert weights == 2 * 4 * (12 * 7 + 7 + 7 * 5 + 5)
    assert each == 4 * (12 + 7)  # the image, and the output of the ReLU, which two layers keep
    network[1].requires_grad_(False)
    weights, each = step_bytes(network, torch.randn(4, 3, 2, 2))
    assert weights == 4 * (12 * 7 + 7) + 2 * 4 * (7 * 5 + 5)
    assert each == 4 * 7
    assert measure("linear", Shape(28, 1, 10), CPU).memory == 2 * 4 * 7_850 + 2 * 4 * 784


def test_networks_with_auxiliary_heads_are_trained_with_them() -> None:
    labels = torch.tensor([0, 2])
    heads = [torch.randn(2, 3, requires_grad=True) for _ in range(3)]
    loss = total_loss(tuple(heads), labels)
    assert loss.item() == pytest.approx(sum(total_loss(head, labels).item() for head in heads))
    loss.backward()
    assert all(head.grad is not None and head.grad.any() for head in heads)
    found = measure("googlenet", Shape(32, 3, 10), CPU)
    assert found.notes == []
    assert found.images_per_s["training"] > 0


def test_segmentation_networks_learn_all_pixels() -> None:
    torch.manual_seed(0)
    maps, labels = torch.randn(3, 4, 5, 6), torch.tensor([2, 0, 3])
    wanted = [-maps[row].log_softmax(0)[label].mean() for row, label in enumerate(labels)]
    assert total_loss(maps, labels).item() == pytest.approx(float(torch.stack(wanted).mean()), rel=1e-5)
    found = measure("unet_small", Shape(32, 3, 2), CPU)
    network = create_network("unet_small", 2, 3, 32, maps=True)
    assert found.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert found.operations == 2 * cost(network, (3, 32, 32)).multiply_adds and not found.notes
    assert {*found.images_per_s} == {"inference", "training"}


def test_the_network_is_unchanged_by_its_training(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def create(*arguments: Any, **named: Any) -> nn.Module:
        made.append(
            (network := create_network(*arguments, **named), [p.detach().clone() for p in network.parameters()])
        )
        return network

    monkeypatch.setattr(benchmark_measure, "create_network", create)
    measure("lenet5", Shape(28, 1, 10), CPU)
    network, before = made[0]
    assert all(torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))
    assert all(parameter.grad is not None for parameter in network.parameters())  # it was trained


def test_bfloat16_and_channels_last_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.add(outputs.dtype)
        return total_loss(outputs, labels)

    monkeypatch.setattr(benchmark_measure, "total_loss", loss)
    rows = benchmark("lenet5", *CIFAR, "--precision", "bf16", "--channels_last")
    assert seen == {torch.bfloat16}
    assert (rows["lenet5"]["precision"], rows["lenet5"]["channels_last"]) == ("bf16", "True")


def test_table_and_csv_without_runs(capsys: pytest.CaptureFixture[str]) -> None:
    rows = benchmark("lenet5", "cnn3", "lenet5", *CIFAR)
    assert list(rows) == ["lenet5", "cnn3"]
    assert list(rows["cnn3"]) == COLUMNS.split()
    assert rows["cnn3"]["parameters"] == "528054"
    assert rows["cnn3"]["device"] == "cpu (1 thread)"
    assert [rows["cnn3"][name] for name in ("test/acc", "data", "run")] == ["", "", ""]
    assert all(float(row[f"{stage}_images_per_s"]) > 0 for row in rows.values() for stage in ("inference", "training"))
    out, err = capsys.readouterr()
    assert "a multiply-add counts as two" in out
    assert "3x32x32" in out
    assert "528 k" in out
    assert "test/acc" not in out
    assert "no run of these networks on such images has test/acc" in err
    assert sorted(path.name for path in Path("benchmark").iterdir()) == ["speed_operations.png", "table.csv"]


def test_accuracies_come_from_the_best_run_of_the_same_network(capsys: pytest.CaptureFixture[str]) -> None:
    trained("nets/1", "lenet5", 0.61, 545_846)
    trained("nets/2", "lenet5", 0.66, 545_846)
    trained("nets/3", "lenet5", 0.99, 1_000)  # other options: another network of the same name
    trained("nets/4", "cnn3", 0.70, 528_054)
    trained("other/5", "cnn3", 0.98, 528_054, "MNIST", (28, 1, 10))
    trained("other/6", "linear", 0.97, 30_730, shape=None)
    rows = benchmark("lenet5", "cnn3", "linear", *CIFAR, "--output", "benchmark")
    assert rows["lenet5"]["parameters"] == "545846"
    assert [rows["lenet5"][name] for name in ("test/acc", "data", "run")] == ["0.66", "CIFAR10", "nets/2"]
    assert [rows["cnn3"][name] for name in ("test/acc", "run")] == ["0.7", "nets/4"]
    assert rows["linear"]["test/acc"] == ""
    out, err = capsys.readouterr()
    assert "test/acc (CIFAR10)" in out
    assert "0.6600" in out
    assert "lenet5: skipped runs with another number of parameters: nets/3" in err
    assert "skipped, no checkpoint records the shape of their images: other/6" in err
    assert "runs on MNIST skipped" in err
    assert "no run has test/acc: linear" in err
    for name in ("accuracy_operations.png", "accuracy_per_parameter.png"):
        assert (Path("benchmark") / name).read_bytes().startswith(b"\x89PNG")


def test_data_gives_the_shape(capsys: pytest.CaptureFixture[str]) -> None:
    trained("nets/1", "lenet5", 0.61, 545_846)
    trained("nets/2", "lenet5", 0.98, 303_626, "MNIST", (28, 1, 10))
    rows = benchmark("lenet5", "linear", "--data", "MNIST")
    assert [rows["lenet5"][name] for name in ("image_size", "in_channels", "test/acc")] == ["28", "1", "0.98"]
    assert rows["linear"]["parameters"] == "7850"  # as the others: it has no run of its own
    capsys.readouterr()
    assert main(["benchmark", *QUICK, "lenet5", "--data", "MNIST", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["run"] == "nets/2"
    rows = benchmark("lenet5", "--data", "MNIST", "--experiments", "nets", "--num_classes", "7")
    assert [rows["lenet5"][name] for name in ("image_size", "num_classes", "test/acc")] == ["28", "7", ""]


def bubbles(figure: Figure) -> list[tuple[float, float, float]]:
    """The place and the area of each bubble."""
    drawn = figure.axes[0].collections[0]
    assert isinstance(drawn, PathCollection)
    return [(x, y, area) for (x, y), area in zip(np.asarray(drawn.get_offsets()), drawn.get_sizes(), strict=True)]


ROWS: list[dict[str, Any]] = [
    {"architecture": "small", "parameters": 1_000_000, "operations": 10_000_000, "test/acc": 0.5, "data": "D"},
    {"architecture": "large", "parameters": 4_000_000, "operations": 900_000_000, "test/acc": 0.8, "data": "D"},
    {"architecture": "unknown", "parameters": 9_000_000, "operations": 1_000_000, "test/acc": None, "data": None},
]


def test_the_charts_have_a_mark_for_each_network_with_an_accuracy() -> None:
    figures = benchmark_figures(ROWS, "test/acc")
    assert list(figures) == ["accuracy_operations.png", "accuracy_per_parameter.png"]
    axes = figures["accuracy_operations.png"].axes[0]
    small, large = bubbles(figures["accuracy_operations.png"])
    assert (small[:2], large[:2]) == ((1e7, 50.0), (9e8, 80.0))
    assert large[2] / small[2] == pytest.approx(4)  # the area, not the diameter
    assert {text.get_text() for text in axes.texts} == {"small", "large"}
    assert "test/acc (D)" in axes.get_ylabel()
    assert "a multiply-add counts as two" in axes.get_xlabel()
    bars = figures["accuracy_per_parameter.png"].axes[0]
    assert [bar.get_width() for bar in bars.patches if isinstance(bar, Rectangle)] == [20.0, 50.0]
    assert [tick.get_text() for tick in bars.get_yticklabels()] == ["large", "small"]


def test_names_in_the_chart_neither_overlap_nor_leave_it() -> None:
    rows = [
        {
            "architecture": f"network_number_{i}",
            "parameters": 10 ** (5 + i % 4),
            "operations": 1e8 * (1 + 0.03 * i),
            "test/acc": 0.9 + 0.002 * (i % 5),
            "data": "D",
        }
        for i in range(8)
    ] + [{**ROWS[1], "operations": 1e10, "test/acc": 0.99}, {**ROWS[0], "parameters": 10}]
    figure = benchmark_figures(rows, "test/acc")["accuracy_operations.png"]
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 10
    assert [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])] == []
    inside = figure.axes[0].bbox
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes)
    assert all(inside.y0 <= box.y0 and box.y1 <= inside.y1 for box in boxes)


def test_bubbles_are_not_clipped() -> None:
    figure = benchmark_figures(ROWS, "test/acc")["accuracy_operations.png"]
    axes = figure.axes[0]
    for x, y, area in bubbles(figure):
        radius = (area / 3.14159) ** 0.5 * figure.dpi / 72
        centre_x, centre_y = axes.transData.transform((x, y))
        assert axes.bbox.x0 < centre_x - radius
        assert centre_x + radius < axes.bbox.x1
        assert axes.bbox.y0 < centre_y - radius
        assert centre_y + radius < axes.bbox.y1


def test_short_numbers() -> None:
    assert [short(n) for n in (7, 303_626, 25.6e6, 3.63e9, 2e12)] == ["7", "304 k", "25.6 M", "3.63 G", "2 T"]


def test_what_can_not_be_measured_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    rows = benchmark("alexnet", "linear", "--image_size", "8", "--num_classes", "10")
    assert list(rows) == ["linear"]
    assert "skipped: images of 8x8 don't fit alexnet" in capsys.readouterr().err


def test_too_large_a_batch_is_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    rows = benchmark("linear", *CIFAR, "--batch_size", "1000000000")
    assert [rows["linear"][f"{stage}_images_per_s"] for stage in ("inference", "training")] == ["", ""]
    assert rows["linear"]["memory_bytes"] == ""
    out, err = capsys.readouterr()
    assert "linear: no training: out of memory (it needs about" in err
    assert "try a smaller --batch_size" in err
    assert " - " in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required: architectures"),
        (["lenet"], "unknown architecture 'lenet'; did you mean lenet5"),
        (["nothing*"], "unknown architecture 'nothing*'"),
        (["*"], "exceed --most 20: name fewer, or increase it"),
        (["no_file.net"], "there is no module 'no_file'"),
        (["alexnet", "--image_size", "8"], "images of 8x8 don't fit alexnet"),
        (["lenet5", "--image_size", "0"], "--image_size 0: it must be at least 1"),
        (["lenet5", "--seconds", "-1"], "--seconds -1.0: it must be a number above 0"),
        (
            ["lenet5", "--metric", "test/loss"],
            "--metric test/loss: the charts need a metric for which higher is better",
        ),
        (["lenet5", "--data", "MNISTT"], "no run of these networks has test/acc on --data MNISTT; did you mean MNIST?"),
        (["lenet5", "--experiments", "netz"], "no run 'netz'"),
        (
            ["lenet5", *CIFAR, "--in_channels", "1"],
            "runs on several data sets, Digits, MNIST: choose one",
        ),
        (["lenet5", *CIFAR, "--output", "file"], "can't make file (File exists): choose another place with --output"),
        (["lenet5", *CIFAR, "--output", "taken"], "can't write taken/table.csv (Is a directory)"),
        (["lenet5", "--sise", "3"], "unrecognized arguments: --sise 3"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    trained("nets/1", "lenet5", 0.9, 1, "MNIST", (32, 1, 10))
    trained("nets/2", "lenet5", 0.9, 1, "Digits", (32, 1, 10))
    Path("file").touch()
    Path("taken/table.csv").mkdir(parents=True)
    assert main(["benchmark", *QUICK, *words]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


@pytest.mark.parametrize("word", ["--help", "lenet"])
def test_help_and_a_mistyped_name_import_no_torch(word: str) -> None:
    code = (
        "import sys; from lightning_cnn.cli import main\n"
        f"try: main(['benchmark', {word!r}])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'timm', 'matplotlib', 'pytorch_lightning'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_data_of_a_users_own_are_different_data(capsys: pytest.CaptureFixture[str]) -> None:
    for number, folder in enumerate(("cats", "dogs")):
        trained(f"nets/{number}", "lenet5", 0.9, 545_846, "ImageTable", root=f"/data/{folder}")
    assert main(["benchmark", *QUICK, "lenet5", *CIFAR]) == 2
    assert "ImageTable:cats, ImageTable:dogs: choose one" in capsys.readouterr().err
    assert benchmark("lenet5", "--data", "ImageTable:dogs")["lenet5"]["run"] == "nets/1"


def test_a_metric_that_no_run_has_yet(capsys: pytest.CaptureFixture[str]) -> None:
    benchmark("lenet5", *CIFAR, "--metric", "test/iou")
    assert "no run of these networks on such images has test/iou" in capsys.readouterr().err

"""Times `list runs` and `compare` of many runs, the first time and from the cache, against reading each file again.

    uv run experiments/benchmarks/many_runs.py --runs 10000

Copies of one real run are written into a temporary folder, with other names, starts, seeds, learning rates and metrics.
All ways must print the same.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXPERIMENTS = 40
VERBS = {"list": ["list", "runs"], "compare": ["compare"]}


def command(*words: str) -> list[str]:
    """A command line of the package."""
    return [sys.executable, "-m", "lightning_cnn", *words]


def write_runs(template: Path, runs_dir: Path, count: int) -> None:
    """Copies of a run, with checkpoints and figures of one byte."""
    record = json.loads((template / "run.json").read_text())
    config, metrics = ((template / name).read_text() for name in ("config.yaml", "metrics.csv"))
    for number in range(count):
        start = f"2026-{1 + number % 12:02}-{1 + number % 28:02}T{number % 24:02}:{number % 60:02}:00+00:00"
        folder = runs_dir / f"experiment_{number % EXPERIMENTS}" / f"20260101-000000-{number:04x}"
        for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "figures/curves.png"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"0")
        changed = {metric: value + number / 1e6 for metric, value in record["metrics"].items()}
        (folder / "run.json").write_text(json.dumps(record | {"start": start, "metrics": changed}))
        other = config.replace("lr: 0.003", f"lr: 0.00{1 + number % 9}").replace(
            "everything: 42", f"everything: {number % 7}"
        )
        (folder / "config.yaml").write_text(other)
        (folder / "metrics.csv").write_text(metrics)


def timed(words: list[str], cache: str) -> tuple[float, str]:
    """Seconds of a command, and what it prints."""
    begun = time.perf_counter()
    done = subprocess.run(command(*words), env={**os.environ, "XDG_CACHE_HOME": cache}, capture_output=True, check=True)
    return time.perf_counter() - begun, done.stdout.decode()


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        runs_dir, one = Path(place, "runs"), Path(place, "one")
        small = [
            "--config",
            "digits_lenet5",
            "--trainer.max_epochs",
            "1",
            "--wandb",
            "disabled",
            "--runs_dir",
            str(one),
        ]
        subprocess.run(command("train", *small), check=True, capture_output=True)
        write_runs(next(one.glob("*/*/run.json")).parent, runs_dir, args.runs)
        Path(place, "no_folder").write_text("")
        print(f"{args.runs:,} runs, seconds, median of {args.repeats}\n")
        print("| | without a cache | first time | from the cache |\n|---|---|---|---|")
        for verb, words in VERBS.items():
            words = [*words, "--runs_dir", str(runs_dir)]
            plain = [timed(words, f"{place}/no_folder") for _ in range(args.repeats)]
            first = timed(words, f"{place}/cache")
            later = [timed(words, f"{place}/cache") for _ in range(args.repeats)]
            if len({text for _, text in [*plain, first, *later]}) != 1:
                sys.exit(f"{verb}: the cache changes what is printed")
            seconds = [statistics.median(each for each, _ in turns) for turns in (plain, [first], later)]
            print(f"| `{verb}` | " + " | ".join(f"{value:.2f}" for value in seconds) + " |")


if __name__ == "__main__":
    main()

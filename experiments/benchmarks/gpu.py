"""Measures the training on one GPU, part by part, against plain loops; with `--smoke` the same code on a CPU, in short.

    python experiments/benchmarks/gpu.py --packed FOLDER --out gpu.json
    python experiments/benchmarks/gpu.py --smoke --out smoke.json

Each part is written to the JSON file when it is done, and is not measured again by the next call; a table in Markdown
lies beside it. No part begins after `--minutes`. `README.md` beside this file says what the script expects where.
"""

import argparse
import json
import logging
import os
import platform
import shutil
import sys
import time
import traceback
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from gpu_bench import Bench, unpack
from gpu_parts import PARTS


def table(found: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = [
        f"{found['device']}, torch {found['torch']}, Lightning {found['lightning']}\n",
        "| part | what | found |",
        "|---|---|---|",
    ]
    for part, rows in found["parts"].items():
        for row in rows:
            values = [
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
            ]
            lines.append(f"| {part} | {row['what']} | {', '.join(values[1:])} |")
    return "\n".join(lines) + "\n"


def run() -> int:
    """Measures the parts that are asked for and not yet measured."""
    parser = argparse.ArgumentParser(description="Measures the training on one GPU, against plain loops.")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with MNIST/raw, CIFAR-10 and prices")
    parser.add_argument("--packed", type=Path, help="folder with packed data, which are unpacked into --data")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="file of the results")
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], default=[*PARTS], help="what to measure")
    parser.add_argument("--minutes", type=float, default=8.0, help="no part begins after so many minutes")
    parser.add_argument("--smoke", action="store_true", help="try the script on a CPU, with little of everything")
    options = parser.parse_args()
    begin = time.monotonic()
    if not options.smoke and not torch.cuda.is_available():
        print("error: there is no GPU; --smoke tries the script on the CPU", file=sys.stderr)
        return 2
    os.environ["WANDB_MODE"] = "offline"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    if options.packed:
        unpack(options.packed, options.data)
    device = torch.device("cpu" if options.smoke else "cuda")
    bench = Bench(device, options.smoke, options.data.absolute())
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU ({platform.machine()}), a trial"
    found: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {"parts": {}}
    found |= {"device": name, "torch": torch.__version__, "lightning": version("pytorch-lightning")}
    failed = False
    for part in options.parts:
        if part in found["parts"] or time.monotonic() - begin > 60 * options.minutes:
            continue
        start = time.monotonic()
        try:
            found["parts"][part] = PARTS[part](bench)
        except Exception:  # the other parts are worth measuring all the same
            failed = True
            traceback.print_exc()
            continue
        options.out.write_text(json.dumps(found, indent=1))
        options.out.with_suffix(".md").write_text(table(found))
        print(f"{part}: {time.monotonic() - start:.0f} s", flush=True)
    shutil.rmtree(bench.work, ignore_errors=True)
    print(table(found))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run())

"""The benchmark of a GPU: all that it does there, tried on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "experiments" / "benchmarks" / "gpu.py"


def call(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Calls the script."""
    command = [sys.executable, str(SCRIPT), "--data", "nothing", *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | more)


@pytest.mark.ci
def test_all_parts_run_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("--smoke")
    assert done.returncode == 0, done.stderr[-3000:]
    parts = json.loads(Path("gpu.json").read_text())["parts"]
    names = ["mnist", "cifar_fast", "resnets", "alexnet", "returns", "resumption", "processes", "compiling"]
    assert list(parts) == names and all(parts.values())
    assert parts["resumption"][0]["equal"] is True and parts["processes"][0]["exit code"] == 0
    assert parts["compiling"][-1]["median"] == 0  # on a CPU nothing waits
    speeds = [row["images/s"] for part in ("mnist", "resnets") for row in parts[part]]
    assert min(speeds) > 0 and all(f"| {name} | " in Path("gpu.md").read_text() for name in names)
    Path("gpu.md").unlink()
    assert call("--smoke").returncode == 0 and not Path("gpu.md").exists()  # nothing is measured twice


def test_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stderr) == (2, "error: there is no GPU; --smoke tries the script on the CPU\n")
    assert not [*tmp_path.iterdir()]

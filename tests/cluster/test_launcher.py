"""Processes that torchrun starts, on one machine and on two."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from holding import TRAINING, held, hold, metrics, same_weights
from run_folders import record
from slurm_cluster import until
from typed import typed_config

from lightning_cnn.cli import main
from lightning_cnn.resume.run_lock import RUN_FOLDER

PROJECT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node"]
PATHS = os.pathsep.join([str(PROJECT), str(PROJECT / "tests" / "tools")])
SUBNET = "10.213.77"


def of_torchrun(here: int, machines: int, all_of_them: int, first: str = "localhost") -> dict[str, str]:
    """Variables that torchrun sets."""
    names = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "0", "RANK": "0", "MASTER_ADDR": first, "MASTER_PORT": "1"}
    numbers = {"LOCAL_WORLD_SIZE": here, "GROUP_WORLD_SIZE": machines, "WORLD_SIZE": all_of_them}
    return names | {name: str(value) for name, value in numbers.items()}


@pytest.mark.parametrize(
    ("variables", "words", "expected"),
    [
        (of_torchrun(3, 2, 4), [], "torchrun started different numbers of processes on the machines: use --nproc_"),
        (of_torchrun(1, 2, 2, "no.such.invalid"), [], "can't find the first machine, no.such.invalid, by its name"),
        (
            of_torchrun(2, 1, 2),
            ["--trainer.devices", "3"],
            "--trainer.devices 3: remove it, torchrun sets it",
        ),
        (
            of_torchrun(2, 1, 2),
            ["--trainer.num_nodes", "2"],
            "--trainer.num_nodes 2: remove it, torchrun sets it",
        ),
    ],
)
def test_contradictions_are_one_line(
    variables: dict[str, str],
    words: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["fit", "--data", "Digits", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and expected in line
    assert not Path("runs").exists()


@pytest.mark.ci
def test_torchrun_says_how_many_processes_there_are() -> None:
    words = ["--data", "Digits", "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--wandb", "disabled"]
    call = [
        *TORCHRUN,
        "2",
        "--standalone",
        "--max_restarts",
        "1",
        "-m",
        "lightning_cnn",
        "fit",
        *words,
        "--trainer.limit_train_batches",
        "3",
    ]
    done = subprocess.run(call, env=os.environ | {"PYTHONPATH": PATHS}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (folder,) = Path("runs").glob("*/*")
    assert record(folder)["device"].startswith("2 x cpu")
    assert done.stdout.count("run folder") == 1
    assert done.stderr.count("export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1") == 1


def test_the_kubernetes_job_is_one_that_torchrun_understands() -> None:
    from torch.distributed.run import get_args_parser

    service, job = yaml.safe_load_all((PROJECT / "experiments/kubernetes/train.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    program, *words = container["command"]
    options = get_args_parser().parse_args(words)
    assert program == "torchrun" and options.module and options.training_script == "lightning_cnn"
    assert int(options.nnodes) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert int(options.nproc_per_node) == container["resources"]["limits"]["nvidia.com/gpu"]
    first, port = options.rdzv_endpoint.split(":")
    assert first == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert int(port) == service["spec"]["ports"][0]["port"]
    assert service["metadata"]["name"] == job["spec"]["template"]["spec"]["subdomain"]
    assert {RUN_FOLDER, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"} <= {variable["name"] for variable in container["env"]}
    verb, *training = options.training_script_args
    assert verb == "train" and typed_config(verb, training)["experiment"] == "cifar10_resnet18"


@contextmanager
def two_hosts() -> Iterator[list[str]]:
    """Two network namespaces with a cable between them; their names, which are those of their interfaces, too."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("two network namespaces need iproute2 and root")
    names = [f"host{os.getpid()}{letter}" for letter in "ab"]
    try:
        for name in names:
            made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
            if made.returncode:
                pytest.skip(f"network namespaces are not allowed here: {made.stderr.strip()}")
        ends = [f"v{os.getpid()}{letter}" for letter in "ab"]
        commands = [["ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1]]]
        for number, (name, end) in enumerate(zip(names, ends, strict=True), 1):
            commands.append(["ip", "link", "set", end, "netns", name, "name", "cable"])
            commands.append(["ip", "-n", name, "addr", "add", f"{SUBNET}.{number}/24", "dev", "cable"])
            commands += [["ip", "-n", name, "link", "set", device, "up"] for device in ("cable", "lo")]
        for command in commands:
            subprocess.run(command, check=True, capture_output=True)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def start(hosts: list[str], experiment: str, *words: str) -> list[subprocess.Popen[bytes]]:
    """One torchrun on each of two hosts, with one process each."""
    started = []
    for number, host in enumerate(hosts, 1):
        here = ["--nnodes", "2", "--local_addr", f"{SUBNET}.{number}", "--max_restarts", "3", "--monitor_interval", "1"]
        meet = ["--rdzv_backend", "c10d", "--rdzv_id", "x", "--rdzv_endpoint", f"{SUBNET}.1:29400"]
        meet += ["--rdzv_conf", f"is_host={int(number == 1)}"]  # it looks for the address by the name of the machine
        training = ["-m", "lightning_cnn", "train", *TRAINING, "--wandb", "disabled", "--checkpoint.every_n_steps", "2"]
        call = ["ip", "netns", "exec", host, *TORCHRUN, "1", *here, *meet, *training, *words]
        variables = {"PYTHONPATH": PATHS, "GLOO_SOCKET_IFNAME": "cable", RUN_FOLDER: f"runs/t/{experiment}"}
        variables |= {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        with Path(f"{experiment}{number}.log").open("wb") as log:
            started.append(subprocess.Popen(call, env=os.environ | variables, stdout=log, stderr=log))
    return started


@pytest.mark.slow
def test_a_killed_process_on_one_of_two_hosts() -> None:
    """Torchrun starts all processes once more; the weights equal those of an unbroken run."""
    with two_hosts() as hosts:
        whole = start(hosts, "whole")
        assert [process.wait(300) for process in whole] == [0, 0], Path("whole1.log").read_text()[-3000:]
        parts = start(hosts, "parts", *hold(11))
        until(held(0, 2), 300, "both train")
        os.kill(int(Path("held/0-1").read_text()), signal.SIGKILL)
        assert [process.wait(300) for process in parts] == [0, 0], Path("parts1.log").read_text()[-3000:]
    one, other = Path("runs/t/whole"), Path("runs/t/parts")
    assert record(other)["status"] == "finished" and record(other)["device"].startswith("2 x cpu")
    assert same_weights(one, other) and metrics(one) == metrics(other)

"""`submit`, and what happens to its jobs on a real Slurm: two machines, preemption, the time limit."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from holding import TRAINING, held, hold, metrics, same_weights
from slurm_cluster import Cluster, slurm_cluster, until

from lightning_cnn.cli import main
from lightning_cnn.resume.signals import SIGNALS

pytestmark = pytest.mark.first
PROJECT = Path(__file__).parents[2]
QUICK = ["submit", "--data", "Digits", "--model.architecture", "ffnn"]
FREEZING = ["--trainer.callbacks+=LayerFreezing", "--trainer.callbacks.epoch", "1", "--trainer.callbacks.layers"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with slurm_cluster() as found:
        yield found


@pytest.fixture
def on_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The tools of Slurm, and jobs that find the package, this folder and the same Python."""
    for name, value in (cluster.environment | {"PYTHON": sys.executable}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT), str(PROJECT / "tests" / "tools")]))
    return cluster


def the_job(out: str) -> tuple[str, Path]:
    """Number and run folder of a job, from what `submit` prints."""
    words = out.splitlines()[0].split()
    return words[1], Path(words[-1])


@pytest.mark.ci
def test_two_machines_and_a_preemption_give_the_weights_of_an_unbroken_run(
    on_cluster: Cluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unbroken run is that of the hand-written script."""
    script = str(PROJECT / "experiments/slurm/train.sbatch")
    fewer = ["--ntasks-per-node=1", "--cpus-per-task=1", "--time=10"]
    whole = on_cluster("sbatch", "--parsable", *fewer, script, *TRAINING, "--wandb", "disabled")
    words = ["submit", "--nodes", "2", "--tasks_per_node", "1", "--time", "10", *TRAINING, "--wandb", "offline"]
    assert main([*words, *hold(11)]) == 0
    job, folder = the_job(capsys.readouterr().out)
    until(held(0, 2), 240, "the job trains")
    on_cluster.wait(whole)  # or it would be preempted, too
    urgent = on_cluster("sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive", "--wrap=true")
    on_cluster.wait(urgent)
    on_cluster.wait(job, seconds=300)
    unbroken = Path(f"runs/slurm/tests-{whole}")
    assert on_cluster.restarts(job) == 1 and on_cluster.restarts(whole) == 0
    assert same_weights(folder, unbroken) and metrics(folder) == metrics(unbroken)
    (log,) = (path.read_text() for path in Path("runs/digits_ffnn/slurm").glob(f"*/{job}_0_log.out"))
    assert f"job {job} is queued again and will continue in {folder.absolute()}" in log
    assert [line for line in log.splitlines() if line.startswith("run folder ")] == [
        f"run folder   {folder.absolute()}"
    ]
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished" and record["epochs"] == 2 and "test/acc" in record["metrics"]
    assert [path.name[-len(folder.name) :] for path in folder.glob("wandb/offline-run-*")] == [folder.name] * 2
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, "slurm"}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_an_array_whose_jobs_reach_the_time_limit(on_cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Two seeds at the same time; each job is stopped as often as its starts take longer than that."""
    words = ["submit", "--array", "seeds", "3-4", "--time", "4", "--save_before", "30", *TRAINING, *hold(5)]
    assert main([*words, "--wandb", "disabled", "--experiment", "parts"]) == 0
    lines = capsys.readouterr().out.splitlines()
    jobs = {line.split()[1]: Path(line.split()[-1]) for line in lines[:2]}
    for number, (job, folder) in enumerate(jobs.items()):
        on_cluster.wait(job, seconds=1000)
        assert on_cluster.restarts(job) >= 1
        assert main(["train", *TRAINING, "--wandb", "disabled", "--seed_everything", str(3 + number)]) == 0
        (whole,) = Path("runs/digits_ffnn").iterdir()
        assert same_weights(folder, whole) and metrics(folder) == metrics(whole)
        shutil.rmtree(whole)
    assert held(0, 2)()


@pytest.mark.parametrize(
    ("tasks", "start", "expected"),
    [
        ("--ntasks=3", "", "srun started different numbers of processes on the machines: use --ntasks-per-node"),
        ("--ntasks=2", "umount /etc/hosts && ", "n2 can't find the first machine, n1, by its name: add it to DNS or"),
    ],
)
def test_processes_that_cannot_work_together(tasks: str, start: str, expected: str, on_cluster: Cluster) -> None:
    line = f"{start}exec {sys.executable} -m lightning_cnn fit --data Digits"
    words = ["srun", "--nodes=2", tasks, "--kill-on-bad-exit=0", "unshare", "--mount", "sh", "-c", line]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2, done.stderr  # each machine says it
    assert any(line.startswith(f"error: {expected}") for line in errors)
    assert not Path("runs").exists()


LISTENER = """
import pathlib, sys, time
from lightning_cnn.resume.signals import Interrupted, handling_signals
from lightning_cnn.cluster.requeue import queue_again
try:
    with handling_signals():
        pathlib.Path("listens").touch()
        time.sleep(100)
except Interrupted as stop:
    sys.exit(0 if queue_again(stop.signum) else 1)
"""


@pytest.mark.parametrize("name", ["USR2", "INT"])
def test_a_signal_queues_the_job_again_but_that_of_a_user_does_not(name: str, on_cluster: Cluster) -> None:
    Path("listener.py").write_text(LISTENER)
    call = f"--wrap=LIGHTNING_CNN_RUN=somewhere srun --unbuffered {sys.executable} listener.py"
    job = on_cluster("sbatch", "--parsable", "--requeue", call)
    until(Path("listens").exists, 60, "the job listens")
    Path("listens").unlink()
    on_cluster("scancel", f"--signal={name}", job)
    if name == "INT":  # Ctrl-C
        until(lambda: on_cluster.state(job) == "FAILED", 60, "the end")
        return
    until(Path("listens").exists, 60, "it listens again")
    assert on_cluster.restarts(job) == 1
    on_cluster("scancel", job)
    until(lambda: on_cluster.state(job) == "CANCELLED", 60, "it is cancelled")
    assert on_cluster.restarts(job) == 1


def test_a_job_that_is_done_ignores_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes while Python ends would make it a failed one."""
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "argv", ["lightning-cnn", "--version"])
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    try:
        assert main() == 0
        assert {signal.getsignal(signum) for signum in SIGNALS} == {signal.SIG_IGN}
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def test_slurm_refuses(on_cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--partition", "nowhere"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: Slurm refuses the job: ") and "invalid partition specified" in line
    assert not Path("runs").exists()


def test_slurm_takes_a_folder_with_any_name(
    on_cluster: Cluster, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """It has quotes of its own for the lines that begin with #SBATCH."""
    name = "a b;touch pwned;$(touch pwned)`touch pwned`'\"&|>pwned #x"
    assert main([*QUICK, "--runs_dir", name, "--experiment", "odd", "--sbatch", f"comment={name}", "--dry_run"]) == 0
    head, _, _ = capsys.readouterr().out.partition("# command")
    Path("script.sh").write_text(f"{head}\necho here\n")
    (output,) = (line for line in head.splitlines() if line.startswith("#SBATCH --output="))
    logs = Path(shlex.split(output.removeprefix("#SBATCH --output="))[0]).parent
    assert logs.parent == tmp_path / name / "odd" / "slurm"
    logs.mkdir(parents=True)
    job = on_cluster("sbatch", "--parsable", "script.sh")
    on_cluster.wait(job)
    assert [file.name for file in logs.iterdir()] == [f"{job}_0_log.out"]
    assert (logs / f"{job}_0_log.out").read_text() == "here\n"
    assert {path.name for path in tmp_path.iterdir()} == {name, "script.sh"}


def test_the_script_is_shown_where_there_is_no_slurm(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    options = "--nodes 2 --gpus_per_node 8 --cpus_per_task 4 --partition big --time 1-12 --account us --qos high"
    words = [*options.split(), "--constraint", "a100", "--mem", "64GB", "--array", "seeds", "0-2,7", "--at_once", "2"]
    assert main([*QUICK, *words, "--sbatch", "nodelist=n[1-4]", "--setup", "module load cuda", "--dry_run"]) == 0
    script = capsys.readouterr().out
    (logs,) = set(re.findall(r"=(\S+)/%A_%a_0_log\.out\n", script))
    assert re.fullmatch(re.escape(f"{Path.cwd()}/runs/digits_ffnn/slurm/") + r"\d{8}-\d{6}-[0-9a-f]{4}", logs)
    for line in (
        *["nodes=2", "gpus-per-node=8", "ntasks-per-node=8", "cpus-per-task=4", "partition=big", "time=2160"],
        *["account=us", "qos=high", "constraint=a100", "mem=64GB", "array=0-3%2", "requeue", "signal=USR2@90"],
        *["open-mode=append", "nodelist='n[1-4]'", "job-name=digits_ffnn", f"output={logs}/%A_%a_0_log.out"],
    ):
        assert f"\n#SBATCH --{line}\n" in script, line
    assert "\nmodule load cuda\n" in script
    (command,) = (line for line in script.splitlines() if line.startswith("srun "))
    assert f" --output {logs}/%A_%a_%t_log.out --kill-on-bad-exit=1 --open-mode=append --cpus-per-task=4 sh " in command
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "Slurm is not installed here (sbatch not found): submit from a login node"),
        (["--array", "0-9"], "--array '0-9': expected seeds, such as --array seeds 0-9"),
        (["--array", "seeds", "9-0"], "--array 'seeds 9-0': expected at most 1000 different seeds"),
        (["--array", "seeds", "1,1"], "--array 'seeds 1,1': expected at most 1000 different seeds"),
        (["--array", "seeds", "0-99999999"], "--array 'seeds 0-99999999': expected at most 1000 different seeds"),
        (["--array"], "argument --array: expected at least one argument"),
        (["--array", "seeds", "0-1", "--seed_everything", "3"], "--array and --seed_everything exclude each other"),
        (["--array", "seeds", "0-1", "--resume=x"], "--array and --resume exclude each other"),
        (["--nodes", "0"], "--nodes 0: it must be at least 1"),
        (["--time", "soon"], "argument --time: invalid time limit (90 (minutes), 12:00:00"),
        (["--time", "2", "--dry_run"], "--save_before 90: leaves too little of 2 minutes for training"),
        (["--mem", "much"], "--mem 'much': expected an amount of memory, such as 64GB"),
        (["--job_name", "bash"], "--job_name 'bash': expected a name for a job"),
        (["--node", "2", "--dry_run"], "unknown option --node; did you mean --nodes?"),
        (["--partitoin=x", "--dry_run"], "unknown option --partitoin; did you mean --partition?"),
        (["--model.lrr", "1", "--dry_run"], "unknown option --model.lrr; did you mean --model.lr"),
        (["--trainer.devices", "4", "--gpus_per_node", "8", "--dry_run"], "--trainer.devices 4: remove it, "),
        (["--trainer.num_nodes", "4", "--nodes", "2", "--dry_run"], "--trainer.num_nodes 4: remove it, --nodes "),
        (["--model.optimizer_options.etha", "1", "--dry_run"], "--model.optimizer adamw does not accept these"),
        (["--model.schedule", "cosine", "--trainer.max_epochs", "-1", "--dry_run"], "a schedule needs a fixed length"),
        (["--model.transfer", "frozen", "--dry_run"], "--model.transfer frozen freezes layers with random weights"),
        ([*FREEZING, "feature.0", "--dry_run"], "--trainer.callbacks.layers 'feature.0': the network has no such"),
        (["--resume", "no_such_run", "--dry_run"], "no run 'no_such_run' under runs"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main([*QUICK, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {expected}")
    assert not Path("runs").exists()


def test_the_same_number_of_devices_may_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--trainer.devices", "8", "--trainer.num_nodes", "2", "--nodes", "2", "--gpus_per_node", "8"]
    assert main([*QUICK, *words, "--dry_run"]) == 0
    assert "#SBATCH --nodes=2" in capsys.readouterr().out

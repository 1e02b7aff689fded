"""A real Slurm on this machine, for the tests: a controller and several nodes, without systemd, all as root."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

TOOLS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel", "munged", "unshare")
CORES = 4  # that each node claims to have
GPUS = 8  # likewise; files stand for them

CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
ReturnToService=2
GresTypes=gpu
KillWait=5
MinJobAge=300
InactiveLimit=0
{nodes}
PartitionName=normal Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=60 MaxTime=60 State=UP
PartitionName=urgent Nodes=ALL PriorityTier=2 PreemptMode=OFF MaxTime=60 State=UP
"""


@dataclass
class Cluster:
    """A running Slurm.

    Attributes:
        environment: Variables with which the tools of Slurm find it.
        folder: Its configuration and logs.
    """

    environment: dict[str, str]
    folder: Path

    def __call__(self, *words: str) -> str:
        """What a tool of Slurm prints."""
        done = subprocess.run(words, env=os.environ | self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """State of a job, such as RUNNING; of one that was finished long ago an empty string."""
        shown = self("scontrol", "--oneliner", "show", "job", job)
        return shown.split("JobState=")[1].split()[0]

    def restarts(self, job: str) -> int:
        """How often a job was queued again."""
        return int(self("scontrol", "--oneliner", "show", "job", job).split("Restarts=")[1].split()[0])

    def wait(self, job: str, states: tuple[str, ...] = ("COMPLETED",), seconds: float = 180) -> None:
        """Waits for one of some states of a job; one that failed meanwhile fails the test."""
        until(lambda: self.state(job) in (*states, "FAILED", "NODE_FAIL", "TIMEOUT"), seconds, f"job {job} {states}")
        assert self.state(job) in states, f"job {job} is {self.state(job)}"


def until(true: Callable[[], object], seconds: float, what: str) -> None:
    """Waits until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain for: {what}"
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def slurm_cluster(count: int = 2) -> Iterator[Cluster]:
    """Starts a Slurm with some nodes, `n1` and so on, and ends it.

    Its partition `urgent` preempts the default one, `normal`: the jobs there have 60 s to save.
    """
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        pytest.skip(f"no {', '.join(missing)} here: install slurmctld, slurmd, slurm-client and munge")
    if os.geteuid() != 0:
        pytest.skip("a Slurm of several nodes on one machine needs root")
    names = [f"n{number + 1}" for number in range(count)]
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    controller, *ports = _free_ports(count + 1)
    host = socket.gethostname()
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CORES} Gres=gpu:{GPUS} State=UNKNOWN"
        for name, port in zip(names, ports, strict=True)
    )
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(host=host, controller=controller, folder=folder, nodes=nodes))
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-{GPUS - 1}]\n")
    for number in range(GPUS):
        (folder / f"gpu{number}").touch()
    hosts = folder / "hosts"
    hosts.write_text(Path("/etc/hosts").read_text() + f"\n127.0.0.1 {' '.join(names)}\n")
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    environment = {"SLURM_CONF": str(configuration)}
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> None:
        with (folder / "started.log").open("ab") as log:
            started.append(subprocess.Popen(words, env=os.environ | environment, stdout=log, stderr=log))

    munge = [f"--{name}={folder}/munge.{end}" for name, end in (("socket", "socket"), ("key-file", "key"))]
    munge += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    try:
        start("munged", "--foreground", "--force", *munge)
        until((folder / "munge.socket").exists, 20, "munged")
        start("slurmctld", "-D", "-f", str(configuration))
        for name in names:  # their names are known inside the jobs, and nowhere else
            line = 'mount --bind "$1" /etc/hosts && exec slurmd -D -N "$2" -f "$3"'
            start("unshare", "--mount", "sh", "-c", line, "sh", str(hosts), name, str(configuration))
        cluster = Cluster(environment, folder)
        idle = ("sinfo", "--noheader", "--partition=normal", "--states=idle", "--format=%D")
        until(lambda: _printed(idle, environment) == str(count), 60, f"{count} idle nodes, see {folder}")
        yield cluster
    except BaseException:
        for log in sorted(folder.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text()[-3000:]}", file=sys.stderr)
        raise
    finally:
        for process in psutil.process_iter(["environ"]):  # the daemons, and what belongs to jobs that are not over
            if (process.info["environ"] or {}).get("SLURM_CONF") == str(configuration) and process.pid != os.getpid():
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        for daemon in started:
            daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _printed(words: tuple[str, ...], environment: dict[str, str]) -> str:
    done = subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()

"""Modules in the working directory are found where the user names them, and by nobody else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# what a training, a prediction, an export and a probe try to import and do without, as a finder at the end of
# `sys.meta_path` has seen it
OPTIONAL = """
_jsonnet accimage adlfs apex argcomplete backports botocore bottleneck brotli brotlicffi chardet colorama cutlass
cython defusedxml dill envwrap flint fx2trt_oss gammatone gcsfs gmpy gmpy2 h2 hypothesis inplace_abn ipywidgets isal
librosa lz4 lzmaffi monkeytype mpi4py numexpr omegaconf onnx_tf opt_einsum pesq pydot pynvml pystoi pytorch pytz redis
regex rich ruamel s3fs scienceplots scikits simplejson sksparse snappy socksio spmd_types substrait tabulate
tensorflow tensorrt toml torch2trt torch_fidelity torch_xla torchcomms torchdistx tree tvm uarray xarray z3 zstandard
sitecustomize usercustomize
"""
INSTALLED = """
torch numpy psutil yaml pytorch_lightning wandb cloudpickle PIL socket csv secrets queue tomllib
"""
CANARY = """
import sys
frame, importers = sys._getframe(1), []
while frame is not None:
    importers.append(frame.f_globals.get("__name__"))
    frame = frame.f_back
open({ran!r}, "a").write("{name} was imported by " + " ".join(map(str, importers)))
"""
MY_DATA = """
import my_helper
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

class Stripes(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, number):
        import my_late  # in a process that multiprocessing has spawned
        return torch.full((1, 8, 8), number / my_late.EIGHT), torch.tensor(number % my_helper.TWO)

class Data(pl.LightningDataModule):
    num_classes, in_channels, image_size = 2, 1, 8

    def train_dataloader(self):
        import fsspec
        try:
            fsspec.filesystem("s3")  # a library looks for s3fs on behalf of a module of the user's
        except ImportError:
            open("no_s3fs", "w")
        return DataLoader(Stripes(), 4, num_workers=1, multiprocessing_context="START")

    def val_dataloader(self):
        return DataLoader(Stripes(), 4)
"""
FIT = ["fit", "--data", "my_data.Data", "--model", "ImageClassifier", "--model.architecture", "linear"]
FIT += ["--trainer.max_epochs", "1", "--trainer.num_sanity_val_steps", "0", "--wandb", "disabled"]


@pytest.fixture
def canaries() -> Path:
    """Files with the names of libraries, which write their names into a file where they are run."""
    for name in f"{OPTIONAL} {INSTALLED}".split():
        Path(f"{name}.py").write_text(CANARY.format(name=name, ran=str(Path("ran").absolute())))
    return Path("ran")


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"} | variables
    return subprocess.run(words, capture_output=True, text=True, timeout=300, env=environment)


@pytest.mark.ci
@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_a_training_imports_what_is_named_and_nothing_that_lies_beside_it(start: str, canaries: Path) -> None:
    """With a data set of the user's in processes that multiprocessing starts, where its modules must be found, too."""
    Path("my_data.py").write_text(MY_DATA.replace("START", start))
    Path("my_helper.py").write_text("TWO = 2\n")
    Path("my_late.py").write_text("EIGHT = 8\n")
    done = run(sys.executable, "-m", "lightning_cnn", *FIT)
    assert not canaries.exists(), canaries.read_text()
    assert done.returncode == 0, done.stderr
    assert Path("no_s3fs").exists()
    assert len([*Path("runs").glob("*/*/checkpoints/last.ckpt")]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "start",
    [
        [sys.executable, "-c", "import sys; from lightning_cnn.cli import main; sys.exit(main())"],
        [str(Path(sys.executable).with_name("torchrun")), "--nproc_per_node", "2", "-m", "lightning_cnn"],
        [sys.executable, "-m", "lightning_cnn"],
    ],
    ids=["-c", "torchrun", "two processes"],
)
def test_nothing_that_lies_beside_the_data_runs_however_it_is_started(start: list[str], canaries: Path) -> None:
    if "-c" in start:  # what Python itself imports from there is out of our hands
        for name in INSTALLED.split():
            Path(f"{name}.py").unlink()
    words = ["train", "--data", "Digits", "--model.architecture", "linear", "--trainer.max_epochs", "1"]
    words += ["--trainer.accelerator", "cpu", "--wandb", "offline"]
    words += ["--trainer.devices", "2"] if start[-2:] == ["-m", "lightning_cnn"] and "torchrun" not in start[0] else []
    done = run(*start, *words)
    assert not canaries.exists(), canaries.read_text()
    assert done.returncode == 0, done.stderr
    (best,) = Path("runs").glob("*/*/checkpoints/best.ckpt")
    single = start if "torchrun" not in start[0] else [sys.executable, "-m", "lightning_cnn"]
    for verb in (["export"], ["features"], ["test", "--trainer.accelerator", "cpu"]):
        done = run(*single, *verb, "--ckpt_path", str(best))
        assert done.returncode == 0, done.stderr
        assert not canaries.exists(), canaries.read_text()
    if "-c" not in start:
        words = ["sweep", "--search", "model.lr=[0.1,0.01]", "--trials", "2", "--jobs", "2", *words[1:-2]]
        done = run(*single, *words, "--trainer.devices", "1", "--wandb", "disabled")
        assert done.returncode == 0, done.stderr
        assert not canaries.exists(), canaries.read_text()


IN_A_NEW_PROCESS = """
import sys
from lightning_cnn.user_code import LeavingWorkingDirectory, find_user_code
before = [*sys.path]
with LeavingWorkingDirectory():
    assert "" not in sys.path
    {}
assert sys.path == before
"""  # a program of the user's, and in its own folder


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import mine", True),
        ("find_user_code('mine.Net'); import mine", True),
        ("import library", False),
        ("import library; find_user_code('mine'); library.load('mine')", True),
        ("import library; find_user_code('mine'); library.load('beside')", False),
        ("import library; find_user_code('mine'); library.load('mine'); library.load('beside')", False),
        ("find_user_code('json.load'); import json; json.load", True),
        ("find_user_code('package.part'); import package.part", True),
    ],
)
def test_who_finds_what(code: str, found: bool, tmp_path: Path) -> None:
    """`__main__` is the user's own program; a library, which lies elsewhere, finds only what was named."""
    Path("mine.py").write_text("import beside_mine\n")
    Path("beside_mine.py").write_text("")
    Path("beside.py").write_text("open('ran', 'w')\n")
    Path("json.py").write_text("open('ran', 'w')\n")
    Path("package").mkdir()
    Path("package/part.py").write_text("import mine\n")
    library = tmp_path / "elsewhere" / "library.py"
    library.parent.mkdir()
    library.write_text("import importlib\ndef load(name): return importlib.import_module(name)\ntry: import beside\n"
                       "except ImportError: tried = True\n")  # fmt: skip
    if "library" not in code or found:
        code += "; assert 'beside' not in sys.modules"
    elif "load" not in code:
        code += "; assert library.tried"
        found = True
    path = os.pathsep.join(filter(None, [str(library.parent), os.environ.get("PYTHONPATH")]))
    Path("program.py").write_text(IN_A_NEW_PROCESS.format(code))
    done = run(sys.executable, "program.py", PYTHONPATH=path)
    assert (done.returncode == 0) == found, done.stderr
    assert found or "No module named 'beside'" in done.stderr
    assert not Path("ran").exists()


def test_a_wish_of_the_user_stays(tmp_path: Path) -> None:
    """What PYTHONPATH names is searched, also where it is the working directory."""
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    Path("program.py").write_text(IN_A_NEW_PROCESS.format(f"assert {str(tmp_path)!r} in sys.path"))
    done = run(sys.executable, "program.py", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr


def test_a_copy_of_the_source_runs_from_its_own_folder(project: Path, tmp_path: Path) -> None:
    """There the package itself is found by the working directory alone."""
    (tmp_path / "lightning_cnn").symlink_to(project / "lightning_cnn")
    bare = [sys.executable, "-S", "-m", "lightning_cnn", "--version"]  # without the installed packages
    packages = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    done = run(*bare, PYTHONPATH=packages)
    assert done.stdout.startswith("lightning-cnn "), done.stderr

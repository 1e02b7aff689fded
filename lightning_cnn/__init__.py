"""Tracked CNN experiments on PyTorch Lightning: one YAML each, one call or command, a number to trust.

```python
import lightning_cnn as lc

run = lc.train("mnist_lenet5", model={"lr": 0.02}, trainer={"max_epochs": 3}, seed=1)
run.metrics["test/acc"], run.folder, run.config
```

Each function is loaded when it is first used. Nothing is printed: `logging.basicConfig(level="INFO")` shows what the
library reports. Invalid input raises `UserError`.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if sys.platform == "win32":
    raise ImportError("lightning-cnn needs Linux or another POSIX system (file locks, signals); on Windows use WSL 2")

if TYPE_CHECKING:
    from lightning_cnn import architectures as architectures
    from lightning_cnn import datamodules as datamodules
    from lightning_cnn import modules as modules
    from lightning_cnn.cluster.slurm import Slurm as Slurm
    from lightning_cnn.config.config import Config as Config
    from lightning_cnn.engine.api import features as features
    from lightning_cnn.engine.api import fit as fit
    from lightning_cnn.engine.api import show as show
    from lightning_cnn.engine.api import test as test
    from lightning_cnn.engine.api import train as train
    from lightning_cnn.engine.api import validate as validate
    from lightning_cnn.engine.api_many import submit as submit
    from lightning_cnn.engine.api_many import sweep as sweep
    from lightning_cnn.engine.api_many import walk_forward as walk_forward
    from lightning_cnn.engine.benchmark import benchmark as benchmark
    from lightning_cnn.engine.dashboard import dashboard as dashboard
    from lightning_cnn.engine.explain import explain as explain
    from lightning_cnn.engine.export import export as export
    from lightning_cnn.engine.filters import filters as filters
    from lightning_cnn.engine.listing import compare as compare
    from lightning_cnn.engine.listing import list_architectures as list_architectures
    from lightning_cnn.engine.listing import list_data as list_data
    from lightning_cnn.engine.listing import list_experiments as list_experiments
    from lightning_cnn.engine.listing import list_runs as list_runs
    from lightning_cnn.engine.predict import predict as predict
    from lightning_cnn.engine.probe import probe as probe
    from lightning_cnn.engine.report import report as report
    from lightning_cnn.engine.run import Run as Run
    from lightning_cnn.engine.run import load_run as load_run
    from lightning_cnn.engine.source import Weights as Weights
    from lightning_cnn.errors import UserError as UserError

FILES = {
    **dict.fromkeys(("features", "fit", "show", "test", "train", "validate"), "engine.api"),
    **dict.fromkeys(("submit", "sweep", "walk_forward"), "engine.api_many"),
    **dict.fromkeys(("compare", "list_architectures", "list_data", "list_experiments", "list_runs"), "engine.listing"),
    **{name: f"engine.{name}" for name in ("benchmark", "dashboard", "explain", "export", "filters")},
    **{name: f"engine.{name}" for name in ("predict", "probe", "report")},
    **dict.fromkeys(("Run", "load_run"), "engine.run"),
    "Config": "config.config",
    "Slurm": "cluster.slurm",
    "UserError": "errors",
    "Weights": "engine.source",
}
ROOMS = ("architectures", "datamodules", "modules")
# they change nothing in the process, and answer without torch
LIGHT = ("compare", "dashboard", "list_architectures", "list_data", "list_experiments", "list_runs", "load_run")
__all__ = [*FILES, *ROOMS, "__version__"]


def __getattr__(name: str) -> Any:
    if name in ROOMS:
        return import_module(f"{__name__}.{name}")
    if name not in FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{FILES[name]}"), name)
    if not isinstance(found, type) and name not in LIGHT:
        from lightning_cnn.engine.door import public

        found = public(found)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__

"""What stands between Python and the engine: each public call leaves the process as it has found it."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from lightning_cnn.resume.signals import Interrupted, handling_signals, received
from lightning_cnn.user_code import FreshUserCode

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_inside = threading.local()


def public(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A function of the engine as it is called from Python.

    Nothing is printed; Ctrl-C ends it with a KeyboardInterrupt when what can be saved is saved, and at once when it is
    pressed again; what was trusted, seeded and set in the process is afterwards as before.
    """

    @wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if getattr(_inside, "yes", False):  # one public function calls another
            return function(*args, **kwargs)
        _inside.yes = True
        if isinstance(kwargs.get("trust"), str):  # not letter by letter
            kwargs["trust"] = [kwargs["trust"]]
        try:
            with FreshUserCode(), state_kept(), handling_signals(hard=False):
                result = function(*args, **kwargs)
                if received() == signal.SIGINT:  # it came after the last batch: all is kept
                    raise Interrupted(signal.SIGINT)
                return result
        except Interrupted as stop:
            if stop.signum != signal.SIGINT:
                raise
            end = KeyboardInterrupt()
            for note in getattr(stop, "__notes__", [])[-1:]:  # a fold is one of a walk-forward
                end.add_note(note)
            raise end from None
        finally:
            _inside.yes = False

    return call


@contextmanager
def state_kept() -> Iterator[None]:
    """Puts back what a training sets in its process: environment, random states, modes of torch, what is said."""
    import torch
    from lightning_fabric.utilities.seed import _collect_rng_states, _set_rng_states

    from lightning_cnn.config.schema import imports_kept
    from lightning_cnn.engine.quiet import quiet

    cudnn = torch.backends.cudnn
    environment, hook, raises = dict(os.environ), threading.excepthook, logging.raiseExceptions
    states = _collect_rng_states(include_cuda=torch.cuda.is_initialized())
    exact = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fast = cudnn.benchmark, cudnn.deterministic, torch.get_float32_matmul_precision(), torch.get_num_threads()
    try:
        with quiet(), imports_kept():
            yield
    finally:
        for name in os.environ.keys() - environment.keys():
            if name != "WANDB_SERVICE":  # its process lives on
                del os.environ[name]
        os.environ.update(environment)
        threading.excepthook, logging.raiseExceptions = hook, raises
        _set_rng_states(states)
        torch.use_deterministic_algorithms(exact[0], warn_only=exact[1])
        cudnn.benchmark, cudnn.deterministic = fast[:2]
        torch.set_float32_matmul_precision(fast[2])
        torch.set_num_threads(fast[3])

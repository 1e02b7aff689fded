"""Writes how a run ended, whatever ended it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lightning_cnn.engine.resumption import how_to_go_on
from lightning_cnn.engine.sweep.pruning import Pruning
from lightning_cnn.errors import KilledError, StorageError, UserError
from lightning_cnn.resume.files import writing_into
from lightning_cnn.tracking.record import CONFIG, Status
from lightning_cnn.tracking.run import RunFolder


@contextmanager
def recorded(run: RunFolder, verb: str, is_new: bool, pruning: Pruning | None = None) -> Iterator[None]:
    """Writes how the run ended, and lets other processes go on with it.

    A new run that ends by a user's mistake before there is anything worth keeping leaves nothing behind. Where a run
    stays that can go on, the exception gets a note that says how.

    Args:
        run: The run, which this process holds.
        verb: The verb that goes on with it.
        is_new: Whether this process has made it.
        pruning: Of a trial of a sweep: may end it early.
    """
    try:
        with writing_into(run.folder):
            yield
            reason = pruning.reason if pruning is not None else None
            status: Status = "pruned" if reason else "finished"
            _finish_wandb(run, status)
        run.finish(status, reason)
    except BaseException as stop:
        status, error = _end_by(stop)
        with suppress(Exception):  # what went wrong first is to be seen
            _finish_wandb(run, status)
        if run.lost:  # now it is another process's
            raise
        mistaken = status == "failed" and isinstance(stop, UserError)
        can_go_on = (run.folder / CONFIG).is_file()
        never_began = mistaken or (isinstance(stop, StorageError) and not can_go_on)
        if never_began and is_new and not run.record.epochs and run.discard():
            raise
        with suppress(OSError, StorageError):
            run.finish(status, error)
        if can_go_on and (mistaken or status == "interrupted"):
            stop.add_note(how_to_go_on(run, verb))
        raise
    finally:
        run.release()


def _end_by(stop: BaseException) -> tuple[Status, str | None]:
    """The status that an exception gives a run, and why."""
    if isinstance(stop, KeyboardInterrupt | SystemExit):
        return "interrupted", None
    if isinstance(stop, StorageError | KilledError):
        return "interrupted", str(stop)
    return "failed", str(stop) if isinstance(stop, UserError) else f"{type(stop).__name__}: {stop}"


def _finish_wandb(run: RunFolder, status: Status) -> None:
    if run.record.wandb.get("mode") not in (None, "disabled"):
        from lightning_cnn.tracking.wandb_run import finish_wandb

        finish_wandb(status)

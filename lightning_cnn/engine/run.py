"""`Run`: a run folder and its operations."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from lightning_cnn.engine.door import public
from lightning_cnn.errors import UserError, require
from lightning_cnn.tracking.history import read_rows
from lightning_cnn.tracking.labels import Labels
from lightning_cnn.tracking.record import CONFIG, METRICS, default_runs_dir
from lightning_cnn.tracking.removal import remove_runs
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.selection import find_run
from lightning_cnn.user_code import find_user_code

if TYPE_CHECKING:
    import pandas as pd
    from pytorch_lightning import LightningDataModule, LightningModule

    from lightning_cnn.config.config import Config
    from lightning_cnn.engine.explain import Explanation
    from lightning_cnn.engine.report import Report


def load_run(name: str | Path, runs_dir: str | Path | None = None) -> "Run":
    """Loads a run.

    Args:
        name: Its folder, its id, or `EXPERIMENT/ID`.
        runs_dir: The folder of all runs; default `$LIGHTNING_CNN_RUNS`, else `runs/`.

    Returns:
        The run.

    Raises:
        UserError: If there is none.
    """
    return Run.open(find_run(Path(runs_dir or default_runs_dir()), str(name)).folder)


class Run(RunFolder):
    """A run. All its data are read from its folder.

    Attributes:
        folder: The run folder.
        record: What `run.json` holds: `status`, `seconds`, `best`, `seed`, `versions` and more.
    """

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Reads a run folder; the working directory may change afterwards."""
        return super().open(folder.absolute())

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the best checkpoint in training, validation and test, by name, such as `test/acc`."""
        return dict(self.record.metrics)

    @property
    def config(self) -> "Config":
        """The resolved configuration."""
        return self._config()

    @property
    def history(self) -> "pd.DataFrame":
        """All logged metrics: columns `epoch`, `step` and the metrics, a row per step."""
        import pandas as pd

        rows = pd.DataFrame([*read_rows(self.folder / METRICS)])
        return rows.apply(pd.to_numeric, errors="coerce")

    @property
    def predictions(self) -> "pd.DataFrame":
        """Predictions for the test data.

        Raises:
            UserError: If the run has none, or the extra `returns` is not installed.
        """
        import pandas as pd

        path = self.folder / "predictions.parquet"
        if not path.is_file():
            raise UserError(f"{self.folder} has no predictions: use `predict()` on its checkpoint")
        require("returns", path.name)
        return pd.read_parquet(path)

    @public
    def module(self, checkpoint: Literal["best", "last"] = "best", *, trust: Sequence[str] = ()) -> "LightningModule":
        """Loads the trained model, an ordinary LightningModule in evaluation mode.

        Args:
            checkpoint: `best` or `last`; without a best checkpoint, `best` loads the last.
            trust: Modules that a run from outside your runs directories may import, which runs their code.

        Raises:
            UserError: If there is no such checkpoint, or its class can't be found.
        """
        from lightning_cnn.config.checkpoint import read_checkpoint
        from lightning_cnn.engine.loading import model_in
        from lightning_cnn.engine.source import checkpoint_of

        find_user_code(*trust)
        path = checkpoint_of(self) if checkpoint == "best" else self.checkpoint(checkpoint)
        return model_in(read_checkpoint(str(path))).eval()

    @public
    def datamodule(self, *, trust: Sequence[str] = ()) -> "LightningDataModule":
        """Makes the data module of the run, an ordinary LightningDataModule with the preprocessing of its training.

        Reads no data.

        Args:
            trust: Modules that a run from outside your runs directories may import, which runs their code.

        Raises:
            UserError: If its class can't be found.
        """
        from lightning_cnn.engine.build import build_data

        find_user_code(*trust)
        best = self.checkpoint("best")
        found: LightningDataModule = build_data(
            self._config({"ckpt_path": str(best)} if best.is_file() else {}), prepare=False
        )
        return found

    def predict(self, images: Any = (), **options: Any) -> "pd.DataFrame":
        """Predicts images, or ranks the stocks of a price file, with the best checkpoint.

        Args:
            images: Files, folders, Pillow images, arrays or tensors, as for `lightning_cnn.predict`.
            options: Further options of `lightning_cnn.predict`, such as `top_k` or `prices`.

        Raises:
            UserError: If there is no checkpoint, or the images don't fit it.
        """
        from lightning_cnn.engine.predict import predict

        return public(predict)(self, images=images, **options)

    def explain(self, images: Any = (), **options: Any) -> "Explanation":
        """Explains answers of the best checkpoint: for images, or without any for the test data.

        Args:
            images: Files, folders, Pillow images, arrays or tensors, as for `lightning_cnn.explain`.
            options: Further options of `lightning_cnn.explain`, such as `method` or `worst`.

        Raises:
            UserError: If there is no checkpoint, or it can't be explained.
        """
        from lightning_cnn.engine.explain import explain

        return public(explain)(self, images, **options)

    def test(self, **fields: Any) -> dict[str, float]:
        """Evaluates the best checkpoint on the test data; without fields the result is recorded in the run.

        Args:
            fields: As for `lightning_cnn.test`.

        Raises:
            UserError: If there is no checkpoint, or no test part.
        """
        from lightning_cnn.engine.api import test

        metrics = public(test)(self, **fields)
        self.record = Run.open(self.folder).record
        return metrics

    def resume(self, **fields: Any) -> "Run":
        """Resumes training from the last checkpoint, then tests.

        Args:
            fields: Fields to change, such as `trainer={"max_epochs": 20}`, as for `lightning_cnn.train`.

        Returns:
            This run, updated.

        Raises:
            UserError: If the run is finished, or another process trains it.
        """
        if (self.folder / "folds").is_dir():
            from lightning_cnn.engine.api_many import walk_forward as again
        else:
            from lightning_cnn.engine.api import train as again  # type: ignore[assignment]

        self.record = public(again)(resume=self, **fields).record
        return self

    def report(self, **settings: Any) -> "Report":
        """Evaluates the predictions of monthly returns.

        Args:
            settings: As for `lightning_cnn.report`.

        Raises:
            UserError: If the run was not trained on monthly returns.
        """
        from lightning_cnn.engine.report import report

        return public(report)(self, **settings)

    @property
    def tags(self) -> list[str]:
        """Its tags."""
        return Labels.of(self).tags

    @property
    def note(self) -> str:
        """The note that a user has made of it."""
        return Labels.of(self).note

    def tag(self, *tags: str, drop: Sequence[str] = (), note: str | None = None) -> "Run":
        """Tags the run, or notes something of it, also while it is being trained.

        Args:
            tags: Tags to add.
            drop: Tags to drop.
            note: The new note; None keeps the old one.

        Returns:
            This run.

        Raises:
            UserError: If a text is no good tag, or a tag to drop is not there.
        """
        labels = Labels.of(self)
        labels.change(tags, [drop] if isinstance(drop, str) else drop, note)
        labels.write(self.folder)
        return self

    def remove(self) -> int:
        """Removes the run folder with all that is in it, without asking.

        Returns:
            Bytes that are free now.

        Raises:
            UserError: If the run is being trained, or can't be removed.
        """
        return remove_runs([self])

    def __repr__(self) -> str:
        """The name, the status and the number that was watched."""
        best = self.record.best
        number = f", {best['metric']} {best['value']:.4g}" if best else ""
        return f"Run({self.label!r}, {self.status}{number})"

    @public
    def _config(self, fields: dict[str, Any] | None = None) -> "Config":
        from lightning_cnn.config.config import Config
        from lightning_cnn.config.schema import TRAIN
        from lightning_cnn.engine.walkforward.settings import WALK_FORWARD

        kind = WALK_FORWARD if (self.folder / "folds").is_dir() else TRAIN
        return Config.load(self.folder / CONFIG, *([fields] if fields else []), kind=kind)

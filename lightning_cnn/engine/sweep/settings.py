"""The settings of a sweep."""

import itertools
import math
from collections.abc import Mapping
from typing import Any, Literal

from lightning_cnn.config.schema import Kind
from lightning_cnn.engine.sweep.search_space import parse_search, values
from lightning_cnn.errors import UserError, check

TRIALS = 20  # unless asked for another number


class SweepSettings:
    """Settings of a sweep.

    Args:
        search: A setting and its search space, in quotes: `'model.lr=log(1e-4,1e-1)'`,
            `'model.weight_decay=uniform(0,0.1)'`, `'trainer.max_epochs=int(5,20)'` (both ends included) or
            `'data.batch_size=[32,128]'`; may be repeated.
        trials: Total number of trials, including earlier ones; default 20, or all combinations of a grid.
        sampler: `tpe` learns from earlier trials (tree-structured Parzen estimator, Bergstra et al. 2011), `random`
            samples independently, `grid` tries all combinations.
        sampler_seed: Seed of the sampler.
        prune: Whether to stop a trial whose metric is worse than the median of earlier trials at the same epoch, from
            the sixth trial on.
        jobs: Number of trials trained in parallel, each in its own process.

    Raises:
        UserError: If a setting makes no sense.
    """

    def __init__(
        self,
        search: list[str] | None = None,
        trials: int | None = None,
        sampler: Literal["tpe", "random", "grid"] = "tpe",
        sampler_seed: int = 0,
        prune: bool = False,
        jobs: int = 1,
    ) -> None:
        if not search:
            raise UserError("a sweep needs `search`, such as `search` 'model.lr=log(1e-4,1e-1)'")
        for name, number, least in (("trials", trials, 1), ("jobs", jobs, 1), ("sampler_seed", sampler_seed, 0)):
            if number is not None:
                check(name, number, least=least)
        self.space = parse_search(search)
        self.sampler = sampler
        self.sampler_seed = sampler_seed
        self.prune = prune
        self.jobs = jobs
        if sampler == "grid":
            size = math.prod(len(values(*each)) for each in self.space.items())
            self.trials = min(size, trials or size)
        else:
            self.trials = trials or TRIALS

    def combination(self, number: int) -> dict[str, Any]:
        """The settings of a trial of a grid, the last one changing fastest; of another sampler none is known before."""
        if self.sampler != "grid":
            return {}
        combinations = itertools.product(*(values(*each) for each in self.space.items()))
        return dict(zip(self.space, next(itertools.islice(combinations, number, None)), strict=True))


SWEEP = Kind("sweep", groups=(SweepSettings,))


def settings_of(config: Mapping[str, Any]) -> SweepSettings:
    """The settings in the configuration of a sweep."""
    return SweepSettings(**{name: config[name] for name in SWEEP.fields})

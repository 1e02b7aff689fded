"""How well scores rank stocks: AUC and rank correlation, over all months and within each."""

import torch
from torch import Tensor

from lightning_cnn.evaluation.directions import Better

# the metrics of `ranking_metrics` and their directions
RANKING: Better = {"auc": "max", "auc_month": "max", "ic": "max", "ic_t": "max", "ic_positive": "max"}


def ranking_metrics(scores: Tensor, outcomes: Tensor, months: Tensor) -> dict[str, Tensor]:
    """How well scores rank outcomes.

    `auc`: area under the ROC curve, of positive outcomes against the others, ties counting half (Hanley and McNeil
    1982); `auc_month`: its mean over the months that have both. `ic`: mean over the months of the information
    coefficient, the rank correlation of scores and outcomes (Spearman; Grinold and Kahn 2000, chapter 6); `ic_t`: the
    t-statistic of that mean, `ic_positive`: share of months in which it is above zero. If the
    scores of a month are all equal, its IC is 0. A metric is NaN where it is undefined: `auc` if all outcomes are of
    one class, `auc_month` and the IC if they are in every month, `ic_t` if the IC of all months is equal.

    Args:
        scores: Higher for better predicted outcomes, `(n,)`.
        outcomes: Returns, `(n,)`.
        months: Of the outcomes, int64 `(n,)`.
    """
    ic, ic_t, positive = mean_t_positive(monthly_ics(scores, outcomes, months)[1])
    return {
        "auc": auc(scores, outcomes),
        "auc_month": monthly_aucs(scores, outcomes, months)[1].mean(),
        "ic": ic,
        "ic_t": ic_t,
        "ic_positive": positive,
    }


def auc(scores: Tensor, outcomes: Tensor) -> Tensor:
    """Area under the ROC curve of positive outcomes over all months together; NaN if all are of one class."""
    everything = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
    return group_auc(group_ranks(scores, everything), outcomes > 0, everything).mean()  # NaN without a row


def monthly_aucs(scores: Tensor, outcomes: Tensor, months: Tensor) -> tuple[Tensor, Tensor]:
    """The AUC of each month that has positive outcomes and others.

    Args:
        scores: `(n,)`.
        outcomes: Returns, `(n,)`.
        months: Of the outcomes, int64 `(n,)`.

    Returns:
        The months in order, and their AUC, each `(months,)`.
    """
    values, groups = months.unique(return_inverse=True)
    aucs = group_auc(group_ranks(scores, groups), outcomes > 0, groups)
    known = ~aucs.isnan()
    return values[known], aucs[known]


def monthly_ics(scores: Tensor, outcomes: Tensor, months: Tensor) -> tuple[Tensor, Tensor]:
    """The information coefficient of each month in which outcomes differ; 0 if all its scores are equal.

    Args:
        scores: `(n,)`.
        outcomes: Returns, `(n,)`.
        months: Of the outcomes, int64 `(n,)`.

    Returns:
        The months in order, and their coefficients, each `(months,)`.
    """
    values, groups = months.unique(return_inverse=True)
    ics = group_correlation(group_ranks(scores, groups), group_ranks(outcomes, groups), groups)
    known = ~ics.isnan()
    return values[known], ics[known]


def mean_t_positive(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean of monthly values, its t-statistic against 0, and the share of values above 0.

    Args:
        values: `(months,)`.

    Returns:
        NaN without a value; the t-statistic is also NaN if all values are equal.
    """
    mean, spread = values.mean(), values.std() if len(values) > 1 else values.new_zeros(())
    differ = len(values) > 1 and bool(values.max() > values.min())
    t = mean / spread * len(values) ** 0.5 if differ else torch.full_like(mean, torch.nan)
    return mean, t, (values > 0).double().mean()


def group_ranks(values: Tensor, groups: Tensor) -> Tensor:
    """Ranks within groups, from 1 on; equal values share the mean of their ranks.

    Args:
        values: `(n,)`.
        groups: Number of each value's group, from 0 on, int64 `(n,)`.

    Returns:
        float64 `(n,)`.
    """
    order = values.argsort(stable=True)
    order = order[groups[order].argsort(stable=True)]
    values, sorted_groups = values[order], groups[order]
    place = torch.arange(len(order), device=order.device, dtype=torch.float64)
    sizes = torch.bincount(groups)
    starts = (sizes.cumsum(0) - sizes)[sorted_groups]
    new = torch.ones_like(sorted_groups, dtype=torch.bool)
    new[1:] = (values[1:] != values[:-1]) | (sorted_groups[1:] != sorted_groups[:-1])
    ties = new.cumsum(0) - 1
    shared = (group_sums(place, ties) / torch.bincount(ties))[ties]
    return torch.empty_like(shared).scatter_(0, order, shared - starts + 1)


def group_auc(ranks: Tensor, up: Tensor, groups: Tensor) -> Tensor:
    """The area under the ROC curve of each group.

    It is the share of pairs of a positive and another outcome that the scores rank correctly: the statistic of Mann and
    Whitney (1947), computed from the sum of the ranks of the positive outcomes.

    Args:
        ranks: What `group_ranks` gives for the scores, `(n,)`.
        up: Which outcomes are positive, bool `(n,)`.
        groups: Number of each value's group, from 0 on, int64 `(n,)`.

    Returns:
        float64 `(groups,)`, NaN where all outcomes are of one class.
    """
    positive = group_sums(up.double(), groups)
    negative = torch.bincount(groups) - positive
    wins = group_sums(ranks * up, groups) - positive * (positive + 1) / 2
    return wins / (positive * negative)  # 0 / 0 is NaN


def group_correlation(first: Tensor, second: Tensor, groups: Tensor) -> Tensor:
    """The correlation (Pearson) of two values within each group; of ranks it is Spearman's.

    Args:
        first: `(n,)`; if constant in a group, the correlation is 0.
        second: `(n,)`; if constant in a group, the correlation is undefined.
        groups: Number of each value's group, from 0 on, int64 `(n,)`.

    Returns:
        float64 `(groups,)`, NaN where undefined.
    """
    sizes = torch.bincount(groups)
    first, second = (part - (group_sums(part, groups) / sizes)[groups] for part in (first, second))
    together = group_sums(first * second, groups)
    spread, wanted = group_sums(first * first, groups), group_sums(second * second, groups)
    return torch.where(spread > 0, together / (spread * wanted).sqrt(), 0.0).where(wanted > 0, torch.nan)


def group_sums(values: Tensor, groups: Tensor) -> Tensor:
    """Sums within groups, float64 `(groups,)`."""
    count = int(groups.max()) + 1 if len(groups) else 0
    return torch.zeros(count, dtype=torch.float64, device=values.device).index_add_(0, groups, values.double())

"""How well scores order stocks: AUC and rank correlation, over all months and within each."""

import torch
from torch import Tensor

from lightning_cnn.evaluation.directions import Better

# what `ranking_metrics` gives, and which way it is better
RANKING: Better = {"auc": "max", "auc_month": "max", "ic": "max", "ic_t": "max", "ic_positive": "max"}


def ranking_metrics(scores: Tensor, outcomes: Tensor, months: Tensor) -> dict[str, Tensor]:
    """How well scores order outcomes.

    `auc`: area under the ROC curve, of positive outcomes against the others, ties counting half (Hanley and McNeil
    1982); `auc_month`: its mean over the months that have both. `ic`: mean over the months of the information
    coefficient, the rank correlation of scores and outcomes (Spearman; Grinold and Kahn 2000, chapter 6); `ic_t`: the
    t-statistic of that mean, `ic_positive`: share of months in which it is above zero. Scores that are all equal order
    nothing: an IC of 0. A metric is NaN where it is not defined: `auc` where all outcomes are of one class, `auc_month`
    and the IC where they are in every month, `ic_t` of a single month or of months that are all alike.

    Args:
        scores: The higher, the better the outcome is said to be, `(n,)`.
        outcomes: Returns, `(n,)`.
        months: Of the outcomes, int64 `(n,)`.
    """
    up = outcomes > 0
    everything, groups = torch.zeros_like(months), months.unique(return_inverse=True)[1]
    auc, by_month = (group_auc(group_ranks(scores, rows), up, rows) for rows in (everything, groups))
    _, ics = monthly_ics(scores, outcomes, months)
    deviation = ics.std() if len(ics) > 1 else ics.new_zeros(())
    return {
        "auc": auc.mean(),
        "auc_month": by_month.mean(),
        "ic": ics.mean(),
        "ic_t": torch.where(deviation > 0, ics.mean() / deviation * len(ics) ** 0.5, torch.nan),
        "ic_positive": (ics > 0).double().mean(),
    }


def monthly_ics(scores: Tensor, outcomes: Tensor, months: Tensor) -> tuple[Tensor, Tensor]:
    """The information coefficient of each month in which outcomes differ.

    Args:
        scores: `(n,)`.
        outcomes: Returns, `(n,)`.
        months: Of the outcomes, int64 `(n,)`.

    Returns:
        The months, in order, and their coefficients, each `(months,)`.
    """
    values, groups = months.unique(return_inverse=True)
    ics = group_correlation(group_ranks(scores, groups), group_ranks(outcomes, groups), groups)
    known = ~ics.isnan()
    return values[known], ics[known]


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
    """The area under the ROC curve of each group that has both kinds of outcomes.

    It is the share of pairs of a positive and another outcome that the scores order rightly: the statistic of Mann and
    Whitney (1947), from the sum of the ranks of the positive ones.

    Args:
        ranks: What `group_ranks` gives for the scores, `(n,)`.
        up: Which outcomes are positive, bool `(n,)`.
        groups: Number of each value's group, from 0 on, int64 `(n,)`.

    Returns:
        float64 `(groups with both,)`.
    """
    positive = group_sums(up.double(), groups)
    negative = torch.bincount(groups) - positive
    wins = group_sums(ranks * up, groups) - positive * (positive + 1) / 2
    both = (positive > 0) & (negative > 0)
    return wins[both] / (positive * negative)[both]


def group_correlation(first: Tensor, second: Tensor, groups: Tensor) -> Tensor:
    """The correlation (Pearson) of two values within each group; of ranks it is Spearman's.

    Args:
        first: `(n,)`; where it is constant in a group, the correlation is 0.
        second: `(n,)`; where it is constant in a group, there is none.
        groups: Number of each value's group, from 0 on, int64 `(n,)`.

    Returns:
        float64 `(groups,)`, NaN where there is none.
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

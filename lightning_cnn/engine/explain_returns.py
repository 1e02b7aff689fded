"""How much each lag and each dummy of the windows of returns matters for what a network says."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_cnn.config.config import Config
from lightning_cnn.datamodules.returns.monthly_returns import MonthlyReturns
from lightning_cnn.engine.build import build_data
from lightning_cnn.engine.loading import model_in
from lightning_cnn.engine.user_errors import user_errors
from lightning_cnn.errors import UserError
from lightning_cnn.resume.checkpoint_file import data_state

if TYPE_CHECKING:
    from pandas import DataFrame

LAG_METHODS = ("integrated_gradients", "occlusion")
STEP_BATCH = 8192  # windows that integrated gradients computes at once, at least


def lag_attributions(
    config: Config, methods: Sequence[str], steps: int, device: torch.device
) -> tuple["DataFrame", NDArray[np.float32], str]:
    """Mean absolute attributions of the scores of all test windows, against windows of zeros.

    Where the windows are scaled, zero is the mean of a lag. A dummy is the same number in all channels, and counts
    once.

    Args:
        config: That of a test, with the checkpoint.
        methods: Of `LAG_METHODS`.
        steps: Steps of integrated gradients.
        device: What to compute on.

    Returns:
        A row for each lag of each channel, then for each dummy: `channel` (empty for dummies), `column`, and a column
        for each method; the attributions of each window by the last of the methods `(n, channels, columns)`, by
        integrated gradients where they are among them; and their unit.

    Raises:
        UserError: If the data are no windows of monthly returns.
    """
    from captum import attr
    from pandas import DataFrame

    assert config.checkpoint is not None
    data, model = build_data(config), model_in(config.checkpoint).eval().to(device)
    if not isinstance(data, MonthlyReturns) or data.picture:
        kind = "pictures" if isinstance(data, MonthlyReturns) else type(data).__name__
        raise UserError(f"`explain()` is for windows of MonthlyReturns, but the checkpoint was trained on {kind}")
    scaling: Any = data_state(config.checkpoint, "scaling")
    with user_errors():
        data.load_state_dict({"scaling": scaling})
        data.setup("test")
    channels, lags, columns = data.in_channels, data.lags, data.window_length
    # the number of the feature that each value belongs to: those of a dummy are one
    own = torch.arange(channels * lags).view(channels, lags)
    dummies = channels * lags + torch.arange(columns - lags).expand(channels, -1)
    features = torch.cat([own, dummies], 1)
    count = int(features.max()) + 1
    first = torch.stack([(features.flatten() == number).nonzero()[0, 0] for number in range(count)])
    sums = {method: torch.zeros(count, dtype=torch.float64) for method in methods}
    maps = []
    gradients, ablation, mask = attr.IntegratedGradients(model), attr.FeatureAblation(model), features[None].to(device)
    for batch, *_ in data.ordered_batches("test"):
        windows, found = batch.to(device), {}
        if "integrated_gradients" in methods:
            size = max(len(windows), STEP_BATCH)
            found["integrated_gradients"] = gradients.attribute(windows, 0.0, n_steps=steps, internal_batch_size=size)
        if "occlusion" in methods:
            found["occlusion"] = ablation.attribute(windows, 0.0, feature_mask=mask)
        found = {method: values.detach().double().cpu().flatten(1) for method, values in found.items()}
        maps.append(next(iter(found.values())).float().unflatten(1, (channels, columns)))
        for method, values in found.items():
            if method == "integrated_gradients":
                each = torch.zeros(len(values), count, dtype=torch.float64)
                each.index_add_(1, features.flatten(), values)
            else:  # each value of a feature has the effect of the whole
                each = values[:, first]
            sums[method] += each.abs().sum(0)
    whole = torch.cat(maps)
    names = [*((series, column) for series in data.series for column in data.columns[:lags])]
    frame = DataFrame([*names, *(("", column) for column in data.columns[lags:])], columns=["channel", "column"])
    for method, total in sums.items():
        frame[method] = (total / len(whole)).numpy()
    return frame, whole.numpy(), "log-odds" if getattr(model, "gives", "") == "probability" else "score"

"""`predict --prices`: the ranking that a checkpoint gives the stocks of a price file for one month, as a CSV."""

import argparse
import inspect
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, Trainer

from lightning_cnn.config.trust import class_named
from lightning_cnn.config.user_code import find_user_code
from lightning_cnn.datamodules import MonthlyReturns
from lightning_cnn.engine.model_source import made, model_in
from lightning_cnn.engine.wiring import mendable
from lightning_cnn.errors import UserError
from lightning_cnn.plain_text import escaped
from lightning_cnn.tracking.checkpoint import class_and_arguments, data_state, read_checkpoint

SHOWN = 10


def rank_stocks(options: argparse.Namespace, trainer: Trainer) -> tuple[list[str], list[list[str]]]:
    """Ranks the stocks of a price file, clipped and scaled as in the training.

    Args:
        options: Of `predict`: `ckpt_path`, `prices`, `month`, `batch_size`.
        trainer: What computes.

    Returns:
        Names of the columns, and a row for each stock, the best first.

    Raises:
        UserError: If the checkpoint is none of monthly returns, or the prices can't be used.
    """
    if options.ckpt_path is None or options.architecture or options.weights:
        raise UserError("--prices needs --ckpt_path runs/EXPERIMENT/RUN/checkpoints/best.ckpt, and nothing else")
    find_user_code(*options.trust)
    checkpoint = read_checkpoint(options.ckpt_path)
    scaling = data_state(checkpoint, "scaling")
    if scaling is None:
        raise UserError(f"{options.ckpt_path} was not trained on monthly returns: give it --images, or take another")
    model = model_in(checkpoint)
    try:
        with mendable():
            data = _data(checkpoint, options)
            data.load_state_dict({"scaling": scaling})
            _, tickers, month = data.latest_windows(options.month)
            batches: Any = trainer.predict(model, data)
    except UserError as error:
        raise UserError(str(error).replace("--data.month", "--month").replace("--data.prices", "--prices")) from None
    left_out = _arguments(checkpoint)[1].get("leave_out") or []
    found = zip(torch.cat(batches).tolist(), tickers, strict=True)
    ranked = sorted((pair for pair in found if pair[1] not in left_out), key=lambda pair: (-pair[0], pair[1]))
    rows = [[str(rank), ticker, f"{value:.6g}"] for rank, (value, ticker) in enumerate(ranked, start=1)]
    for row in rows[:SHOWN]:
        print("  ".join(map(escaped, row)))
    if len(rows) > SHOWN:
        print("...")
    print(f"{len(rows)} stocks ranked for {month}", end="")
    return ["rank", "ticker", "prediction"], rows


def _data(checkpoint: dict[str, Any], options: argparse.Namespace) -> MonthlyReturns:
    """The data of the training, with other prices; `MonthlyReturns` where the training drew its own.

    Whatever the recipe, a stock without a price in the last month, or with daily prices in its last week, is not
    ranked: nobody can buy it.
    """
    class_path, arguments = _arguments(checkpoint)
    kind = class_named(class_path, LightningDataModule) if class_path else MonthlyReturns
    if "prices" not in inspect.signature(kind).parameters:
        kind = MonthlyReturns
    known = inspect.signature(kind).parameters
    arguments = {name: value for name, value in arguments.items() if name in known}
    arguments |= {"prices": options.prices, "batch_size": options.batch_size, "fill_forward": False, "leave_out": None}
    data: MonthlyReturns = made(kind, arguments)
    return data


def _arguments(checkpoint: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return class_and_arguments(checkpoint, "data") or ("", {})

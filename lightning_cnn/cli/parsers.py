"""The options of the verbs whose work needs torch, apart from it, so that their `--help` answers at once."""

from pathlib import Path

from lightning_cnn.cli.parser import VerbParser
from lightning_cnn.tracking.run import default_runs_dir

PARTS = ("train", "val", "test")
FORMATS = ("onnx", "torch")
# of `probe`: the option of each method that takes several values, and its default
CHOSEN = {"logistic": "c", "svm": "c", "knn": "neighbors"}
DEFAULTS: dict[str, list[float]] = {"c": [1.0], "neighbors": [3]}


def predict(verb: str) -> VerbParser:
    """Of `predict`."""
    parser = VerbParser(
        verb,
        "What a trained model says of image files, prepared exactly as in its training: classes, or the house number; "
        "or of the stocks of a price file: their ranking for the month that follows.",
    )
    _add_model(parser)
    parser.add_argument("--images", nargs="+", help="image files and folders, searched to any depth")
    parser.add_argument("--prices", metavar="FILE", help="of a checkpoint on monthly returns: a price file")
    parser.add_argument(
        "--month",
        metavar="YYYY-MM",
        help="with --prices: rank for this month (default: the one after the last complete month)",
    )
    parser.add_argument("--output", help="the CSV to write (default: predictions.csv, of prices ranking.csv)")
    parser.add_argument(
        "--top_k", type=int, default=3, help="how many of the most probable classes to write, of a classifier"
    )
    parser.add_argument("--batch_size", type=int, default=128, help="images, or stocks, in a batch")
    parser.add_argument("--accelerator", default="auto", help="what to compute on: auto, cpu, gpu, ...")
    return parser


def export(verb: str) -> VerbParser:
    """Of `export`."""
    parser = VerbParser(
        verb,
        "Writes a trained network as ONNX or torch.export, for batches of any size, with its class names and the "
        "preparation of its images as metadata. The file takes prepared images and gives logits; it is compared with "
        "torch before it gets its name.",
    )
    _add_model(parser)
    parser.add_argument("--output", help="file to write, .onnx or .pt2 (default: model.onnx, or model.pt2)")
    parser.add_argument("--format", choices=FORMATS, help="onnx or torch (default: by the suffix of --output)")
    return parser


def features(verb: str) -> VerbParser:
    """Of `features`."""
    parser = VerbParser(
        verb,
        "Writes what a network computes of each image before its last layer, for `probe` or any other tool. The images "
        "are those of --config, --data and --data.*, as `fit` takes them, without augmentation; of a checkpoint, by "
        "default, those of its run.",
    )
    _add_model(parser)
    parser.add_argument("--pixels", action="store_true", help="instead of a network: the scaled pixels themselves")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="of the data (default: all that it has)")
    parser.add_argument("--output", default="features.parquet", help="the file to write, .parquet or .npz")
    parser.add_argument("--accelerator", choices=("auto", "cpu"), default="auto", help="what to compute on")
    return parser


def probe(verb: str) -> VerbParser:
    """Of `probe`."""
    parser = VerbParser(
        verb,
        "Fits a classifier of scikit-learn on the training part of a file of features. Of several values of an option "
        "the validation part chooses one; the test part is only measured.",
    )
    parser.add_argument("file", help="what `lightning-cnn features` wrote")
    parser.add_argument(
        "--method",
        choices=tuple(CHOSEN),
        default="logistic",
        help="logistic regression, svm (radial kernel; minutes for 20,000 images, growing with their square), or "
        "k-nearest neighbors",
    )
    parser.add_argument(
        "--c", type=_above_zero, nargs="+", help="of logistic and svm: inverse strength of regularization (default: 1)"
    )
    parser.add_argument("--neighbors", type=_count, nargs="+", help="of knn: neighbors that vote (default: 3)")
    parser.add_argument("--standardize", action="store_true", help="bring each feature to mean 0 and deviation 1")
    parser.add_argument("--max_rows", type=_count, help="fit on so many random training images only")
    parser.add_argument("--seed", type=int, default=0, help="of the random choice of training images")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def report(verb: str) -> VerbParser:
    """Of `report`."""
    parser = VerbParser(
        verb,
        "What predictions of monthly returns are worth: rank IC, AUC within months, deciles, a long-short portfolio "
        "with costs, beside baselines. Writes pictures into figures/ and one HTML page that needs no network.",
    )
    parser.add_argument(
        "source",
        metavar="RUN_OR_PARQUET",
        help="a run of `walkforward` or `train` (of a training, its test months), or a Parquet file with the columns "
        "date, ticker, prediction, outcome; a baselines.parquet beside it is reported, too",
    )
    parser.add_argument("--cost_bps", type=float, default=10.0, help="cost of trading, in basis points of its value")
    parser.add_argument("--deciles", type=int, default=10, help="number of groups of stocks")
    parser.add_argument("--block_months", type=int, default=6, help="months of a block of the bootstrap")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument(
        "--trials",
        type=int,
        help="configurations tried, for the deflated Sharpe ratio (default: the different ones among the runs on the "
        "same data)",
    )
    parser.add_argument("--note", help="what must be read beside every number, such as 'survivor-biased: only ...'")
    parser.add_argument("--output", type=Path, help="the page (default: report.html, in the folder of the run)")
    _add_trust(parser)
    parser.add_argument("--runs_dir", type=Path, default=default_runs_dir(), metavar="DIR", help="folder of all runs")
    return parser


def _add_model(parser: VerbParser) -> None:
    """What `model_source.load_source` reads."""
    parser.add_argument("--ckpt_path", help="the checkpoint, such as runs/NAME/ID/checkpoints/best.ckpt")
    _add_trust(parser)
    parser.add_argument("--architecture", help="instead of a checkpoint: a network with ImageNet weights, of timm")
    parser.add_argument("--weights", help="with --architecture: file of its weights; else timm downloads them")


def _add_trust(parser: VerbParser) -> None:
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="let checkpoints and runs from outside your runs directories import MODULE, which runs its code",
    )


def _above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


_above_zero.__name__, _count.__name__ = "number above 0", "whole number from 1 on"  # argparse names them in its errors

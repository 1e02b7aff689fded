"""`probe`: a classifier of scikit-learn on a file of features."""

import json
import time
import warnings
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from lightning_cnn.cli import parsers
from lightning_cnn.cli.tables import text_table
from lightning_cnn.engine.feature_file import check_suffix, read_features
from lightning_cnn.errors import UserError


def main(verb: str, argv: list[str]) -> int:
    """Fits on the training part, and prints the accuracy on the others. Returns the exit code."""
    options = parsers.probe(verb).parse_args(argv)
    chosen_option = parsers.CHOSEN[options.method]
    for name in parsers.DEFAULTS:
        if name != chosen_option and getattr(options, name):
            raise UserError(f"--{name} is no option of --method {options.method}: use --{chosen_option}")
    features = read_features(check_suffix(options.file))
    if not np.isfinite(features.values).all():
        raise UserError(f"{options.file} has features that are no finite numbers: make them anew, with other weights")
    train, labels = features.part("train")
    if options.max_rows is not None and options.max_rows < len(labels):
        rows = np.sort(np.random.default_rng(options.seed).permutation(len(labels))[: options.max_rows])
        train, labels = train[rows], labels[rows]
    if len(np.unique(labels)) < 2:
        found = "no images" if len(labels) == 0 else f"{len(labels):,} images of one class"
        raise UserError(f"the training part of {options.file} has {found}: a classifier needs two classes or more")
    values = getattr(options, chosen_option) or parsers.DEFAULTS[chosen_option]
    if not {"val", "test"} & set(features.parts):
        raise UserError(f"{options.file} has neither a validation nor a test part to measure on: make it with --parts")
    validation, truth = features.part("val")
    if len(values) > 1 and len(truth) == 0:
        raise UserError(
            f"--{chosen_option} {' '.join(map(str, values))}: {options.file} has no validation part "
            "to choose with, give one value"
        )
    if options.method == "knn" and max(values) > len(labels):
        raise UserError(f"--neighbors {max(values)} are more than the {len(labels):,} training images")
    begin = time.perf_counter()
    candidates = {value: _fit(options.method, value, options.standardize, train, labels) for value in values}
    scores = {value: one.score(validation, truth) for value, one in candidates.items()} if len(truth) else {}
    best = max(values, key=scores.__getitem__) if scores else values[0]
    result: dict[str, Any] = {
        "method": options.method,
        chosen_option: best,
        "features": train.shape[1],
        "train_images": len(labels),
        "source": features.source,
        "accuracy": {"val": scores[best]} if scores else {},
        "images": {"val": len(truth)} if scores else {},
    }
    test, truth = features.part("test")
    if len(truth):
        result["accuracy"]["test"] = candidates[best].score(test, truth)
        result["images"]["test"] = len(truth)
    result["seconds"] = time.perf_counter() - begin
    if options.json:
        print(json.dumps(result, indent=2))
        return 0
    chosen = f"{chosen_option} {best}"
    if len(values) > 1:
        chosen += f", the best of {', '.join(f'{value} ({scores[value]:.4f})' for value in values)} on validation"
    print(f"{options.method} on {train.shape[1]:,} features of {len(labels):,} training images; {chosen}")
    lines = [[part, f"{result['images'][part]:,}", f"{accuracy:.4f}"] for part, accuracy in result["accuracy"].items()]
    print(text_table([["", "images", "acc"], *lines], right=[False, True, True]))
    print(f"time {result['seconds']:.1f} s")
    return 0


def _fit(method: str, value: float, standardize: bool, features: Any, labels: Any) -> ClassifierMixin:
    classifier = {
        "logistic": lambda: LogisticRegression(C=value, max_iter=1000),
        "svm": lambda: SVC(C=value),
        # brute force is matrix products, faster than a tree from some tens of features on
        "knn": lambda: KNeighborsClassifier(int(value), algorithm="brute"),
    }[method]()
    steps = [StandardScaler(), classifier] if standardize else [classifier]
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            fitted: ClassifierMixin = make_pipeline(*steps).fit(features, labels)
        except ConvergenceWarning:
            raise UserError(
                f"--c {value}: logistic regression has not converged after 1,000 steps: "
                "try --standardize or a smaller --c"
            ) from None
    return fitted

"""`probe`: a classifier of scikit-learn on a file of features."""

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from lightning_cnn.engine.feature_file import check_suffix, read_features
from lightning_cnn.errors import UserError, check, check_choice

# of each method the option that may have several values, and its default
CHOSEN = {"logistic": "c", "svm": "c", "knn": "neighbors"}
DEFAULTS = {"c": 1.0, "neighbors": 3}


@dataclass(frozen=True)
class Probe:
    """A classifier that was fitted on features.

    Attributes:
        method: `logistic`, `svm` or `knn`.
        chosen: Name of its option, `c` or `neighbors`.
        value: The value of the option that is best on the validation part.
        scores: Accuracy on the validation part by value, empty without one.
        features: Size of the features.
        train_images: Images that it was fitted on.
        source: What computed the features: `architecture`, `weights` and `data`.
        accuracy: By part, `val` and `test`.
        images: Number of images by part.
        seconds: Time of fitting and measuring.
    """

    method: str
    chosen: str
    value: float
    scores: Mapping[float, float]
    features: int
    train_images: int
    source: Mapping[str, str]
    accuracy: Mapping[str, float]
    images: Mapping[str, int]
    seconds: float


def probe(
    file: str | Path,
    *,
    method: Literal["logistic", "svm", "knn"] = "logistic",
    c: Sequence[float] = (),
    neighbors: Sequence[int] = (),
    standardize: bool = False,
    max_rows: int | None = None,
    seed: int = 0,
) -> Probe:
    """Fits a classifier of scikit-learn on the training part of a file of features.

    Given several values of an option, the one with the best validation accuracy is used.

    Args:
        file: What `lightning-cnn features` wrote.
        method: Logistic regression, svm (radial kernel; minutes for 20,000 images, growing with their square), or
            k-nearest neighbors.
        c: Inverse regularization strength of logistic and svm (default: 1).
        neighbors: Number of neighbors of knn (default: 3).
        standardize: Standardize each feature to mean 0 and standard deviation 1.
        max_rows: Fit on at most this many training images, chosen at random.
        seed: Seed of the random choice of training images.

    Raises:
        UserError: If the file can't be read or lacks a part, or an option doesn't fit.
    """
    check_choice("method", method, CHOSEN)
    chosen = CHOSEN[method]
    given = {name: [v] if isinstance(v, int | float) else v for name, v in (("c", c), ("neighbors", neighbors))}
    for name, typed in given.items():
        if typed and name != chosen:
            raise UserError(f"`{name}` is not an option of `method` {method}: use `{chosen}`")
    values: Sequence[float] = given[chosen] or [DEFAULTS[chosen]]
    for value in values:
        check(chosen, value, **({"above": 0} if chosen == "c" else {"least": 1}))
    if max_rows is not None:
        check("max_rows", max_rows, least=1)
    features = read_features(check_suffix(file))
    if not np.isfinite(features.values).all():
        raise UserError(f"{file} has features that are NaN or infinite: compute them again, with other weights")
    train, labels = features.part("train")
    if max_rows is not None and max_rows < len(labels):
        rows = np.sort(np.random.default_rng(seed).permutation(len(labels))[:max_rows])
        train, labels = train[rows], labels[rows]
    if len(np.unique(labels)) < 2:
        found = "no images" if len(labels) == 0 else f"{len(labels):,} images of one class"
        raise UserError(f"the training part of {file} has {found}: a classifier needs two classes or more")
    if not {"val", "test"} & set(features.parts):
        raise UserError(f"{file} has neither a validation nor a test part: add one with `parts`")
    if len(values) > 1 and "val" not in features.parts:
        raise UserError(
            f"`{chosen}` {' '.join(map(str, values))}: {file} has no validation part to choose by, so give one value"
        )
    if method == "knn" and max(values) > len(labels):
        raise UserError(f"`neighbors` {max(values)} exceeds the {len(labels):,} training images")
    begin = time.perf_counter()
    fitted = {value: _fit(method, value, standardize, train, labels) for value in values}
    parts = {part: features.part(part) for part in ("val", "test") if part in features.parts}
    scores = {value: float(one.score(*parts["val"])) for value, one in fitted.items()} if "val" in parts else {}
    best = max(values, key=scores.__getitem__) if scores else values[0]
    return Probe(
        method=method,
        chosen=chosen,
        value=best,
        scores=scores,
        features=train.shape[1],
        train_images=len(labels),
        source=features.source,
        accuracy={part: scores[best] if part == "val" else fitted[best].score(*held) for part, held in parts.items()},
        images={part: len(truth) for part, (_, truth) in parts.items()},
        seconds=time.perf_counter() - begin,
    )


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
                f"`c` {value}: logistic regression has not converged after 1,000 steps: "
                "try `standardize` or a smaller `c`"
            ) from None
    return fitted

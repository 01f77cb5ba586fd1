"""How the literature judges representations of time series by classes: machines that are fitted to the training part.

Shapes: N series, D representation size.
"""

from typing import Any

import numpy as np
from torch import nn

import kontrast as kt
from kontrast.evaluate import Representations, embed

__all__ = ["nearest", "svm"]

COSTS = [10.0**power for power in range(-4, 5)]
NEVER = 1e10  # a cost at which no error is tolerated


def svm(
    encoder: nn.Module | tuple[Representations, Representations] | None,
    train: kt.Data | None = None,
    test: kt.Data | None = None,
) -> float:
    """Return the test accuracy, in percent, of an RBF support vector machine by the protocol of TS2Vec.

    Its cost is chosen by cross-validation within the training part in five folds; with fewer than 50 training series,
    or fewer than 5 per class on average, no error is tolerated instead.

    Args:
        encoder: what embeds the data (None: the inputs themselves), or (training, test) representations with labels.
        train: labelled series it is fitted to.
        test: labelled series that are judged.

    Raises:
        IncompatibleError: if labels are missing.
        InvalidValueError: if there is an encoder and no data.
        MissingExtraError: if scikit-learn is not installed.

    Source:
        Franceschi et al. 2019, arXiv:1901.10738, section 5.1; Yue et al. 2022, arXiv:2106.10466, section 4.1.
    """
    selection, machines = (
        kt.optional_import(name, extra="kontrast[timeseries]", purpose="the support vector machine")
        for name in ("sklearn.model_selection", "sklearn.svm")
    )
    (rows, labels), judged = _labelled(encoder, train, test)
    classes = len(np.unique(labels))
    machine: Any = machines.SVC(kernel="rbf", gamma="scale", C=NEVER)
    if len(rows) >= 50 and len(rows) // classes >= 5:
        machine = selection.GridSearchCV(machine, {"C": [*COSTS, NEVER]}, cv=5)
    machine.fit(rows, labels)
    return 100 * float(machine.score(*judged))


def nearest(
    encoder: nn.Module | tuple[Representations, Representations] | None,
    train: kt.Data | None = None,
    test: kt.Data | None = None,
) -> float:
    """Return the test accuracy, in percent, of the nearest training series by the protocol of TS2Vec.

    The distance is Euclidean, on representations of which each number has mean 0 and standard deviation 1 over the
    training part. `kontrast.evaluate.knn` has the weighted vote of many neighbours instead.

    Args:
        encoder: see `svm`.
        train: labelled series among which is looked.
        test: labelled series that are judged.

    Raises:
        IncompatibleError: if labels are missing.
        InvalidValueError: if there is an encoder and no data.
        MissingExtraError: if scikit-learn is not installed.

    Source:
        The code of Yue et al. 2022, arXiv:2106.10466.
    """
    scaling, neighbors = (
        kt.optional_import(name, extra="kontrast[timeseries]", purpose="the nearest neighbour")
        for name in ("sklearn.preprocessing", "sklearn.neighbors")
    )
    (rows, labels), (others, wanted) = _labelled(encoder, train, test)
    scale = scaling.StandardScaler().fit(rows)
    machine = neighbors.KNeighborsClassifier(n_neighbors=1).fit(scale.transform(rows), labels)
    return 100 * float(machine.score(scale.transform(others), wanted))


def _labelled(
    encoder: nn.Module | tuple[Representations, Representations] | None, train: kt.Data | None, test: kt.Data | None
) -> list[tuple[Any, Any]]:
    """Return (representations [N, D], labels [N]) of both parts as arrays."""
    if isinstance(encoder, tuple):
        parts = encoder
    elif train is None or test is None:
        raise kt.InvalidValueError("give an encoder with training and test series, or the representations of both")
    else:
        parts = embed(encoder, train), embed(encoder, test)
    found = []
    for part in parts:
        if part.labels is None:
            raise kt.IncompatibleError("evaluation needs labels, and the data have none")
        found.append((part.rows.double().numpy(), part.labels.numpy()))
    return found

"""How the literature judges representations of time series: a support vector machine, fitted to the training part.

Shapes: N series, D representation size.
"""

from typing import Any

import numpy as np

import kontrast as kt

__all__ = ["svm"]

COSTS = [10.0**power for power in range(-4, 5)]
NEVER = 1e10  # a cost at which no error is tolerated


def svm(train: kt.evaluate.Representations, test: kt.evaluate.Representations) -> float:
    """Return the test accuracy, in percent, of an RBF support vector machine by the protocol of TS2Vec.

    Its cost is chosen by cross-validation within the training part in five folds; with fewer than 50 training series,
    or fewer than 5 per class on average, no error is tolerated instead.

    Args:
        train: representations [N, D] with labels.
        test: likewise.

    Raises:
        IncompatibleError: if labels are missing.
        MissingExtraError: if scikit-learn is not installed.

    Source:
        Franceschi et al. 2019, arXiv:1901.10738, section 5.1; Yue et al. 2022, arXiv:2106.10466, section 4.1.
    """
    if train.labels is None or test.labels is None:
        raise kt.IncompatibleError("evaluation needs labels, and the data have none")
    selection, machines = (
        kt.optional_import(name, extra="kontrast[timeseries]", purpose="the support vector machine")
        for name in ("sklearn.model_selection", "sklearn.svm")
    )
    rows, labels = train.rows.double().numpy(), train.labels.numpy()
    classes = len(np.unique(labels))
    machine: Any = machines.SVC(kernel="rbf", gamma="scale", C=NEVER)
    if len(rows) >= 50 and len(rows) // classes >= 5:
        machine = selection.GridSearchCV(machine, {"C": [*COSTS, NEVER]}, cv=5)
    machine.fit(rows, labels)
    return 100 * float(machine.score(test.rows.double().numpy(), test.labels.numpy()))

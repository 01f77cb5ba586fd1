"""The probe of the graph literature: a support vector machine, cross-validated over the whole set.

Shapes: N samples, D representation size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from .data import Data
from .errors import IncompatibleError, InvalidValueError
from .optional import optional_import
from .representations import Representations, embed

__all__ = ["CrossValidated", "svm"]

COSTS = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)


@dataclass(frozen=True)
class CrossValidated:
    """Accuracies of the folds, in percent; as a float, their mean.

    Args:
        folds: accuracy on each fold, in percent.
    """

    folds: tuple[float, ...]

    def __float__(self) -> float:
        return float(np.mean(self.folds))


def svm(
    encoder: nn.Module | Representations | None,
    data: Data | None = None,
    *,
    folds: int = 10,
    costs: Sequence[float] = COSTS,
    inner_folds: int = 5,
    gamma: float | None = None,
    seed: int = 0,
    jobs: int = 1,
) -> CrossValidated:
    """Return the accuracy of an RBF support vector machine by the protocol of the TU graph sets.

    The whole set is cut into stratified folds. For each, C is chosen by cross-validation within the other folds alone,
    and a machine fitted to them is judged on it once.

    Args:
        encoder: what embeds the data (None: the inputs themselves), or representations of the whole set.
        data: all labelled samples.
        folds: parts that are judged in turn.
        costs: values of C, the inverse strength of the regularisation, to choose from.
        inner_folds: parts of the training folds by which C is chosen.
        gamma: of the kernel exp(-gamma x squared distance); None: 1 / (D x variance of the training folds).
        seed: of the cut into folds.
        jobs: processes.

    Raises:
        InvalidValueError: if an option is out of range.
        IncompatibleError: if labels are missing, or a class has fewer samples than there are folds.
        MissingExtraError: if scikit-learn is not installed.

    Source:
        Sun et al. 2020, arXiv:1908.01000 (InfoGraph), as GraphCL's unsupervised setting has it. Differs from it: the
        kernel's width is that of all training folds in the inner cross-validation too, so that one kernel matrix serves
        all its fits.
    """
    selection, _, parallel = (
        optional_import(name, extra="kontrast[eval]", purpose="the support vector machine")
        for name in ("sklearn.model_selection", "sklearn.svm", "joblib")
    )
    if isinstance(encoder, Representations):
        whole = encoder
    elif data is None:
        raise InvalidValueError("give an encoder with data, or representations of the whole set")
    else:
        whole = embed(encoder, data)
    if whole.labels is None:
        raise IncompatibleError("evaluation needs labels, and the data have none")
    if min(folds, inner_folds) < 2:
        raise InvalidValueError(f"`folds` and `inner_folds` must be >= 2, got {folds} and {inner_folds}")
    if not costs or min(costs) <= 0:
        raise InvalidValueError(f"`costs` must be numbers > 0, got {tuple(costs)}")
    if gamma is not None and not gamma > 0:
        raise InvalidValueError(f"`gamma` must be > 0, got {gamma!r}")
    rows, labels = whole.rows.double().numpy(), whole.labels.numpy()
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2 or counts.min() < folds:
        raise IncompatibleError(
            f"each of two or more classes needs at least {folds} samples, one per fold, got {counts.tolist()} of "
            f"classes {classes.tolist()}; take fewer folds"
        )
    cuts = selection.StratifiedKFold(folds, shuffle=True, random_state=seed).split(rows, labels)
    tasks = [(rows, labels, train, test, tuple(costs), inner_folds, gamma) for train, test in cuts]
    return CrossValidated(tuple(parallel.Parallel(jobs)(parallel.delayed(_fold)(*task) for task in tasks)))


def _fold(
    rows: Any, labels: Any, train: Any, test: Any, costs: tuple[float, ...], inner_folds: int, gamma: float | None
) -> float:
    """Return the accuracy on one fold, in percent."""
    from sklearn.model_selection import GridSearchCV  # in the process that fits
    from sklearn.svm import SVC

    width = 1.0 / (rows.shape[1] * max(float(rows[train].var()), 1e-12)) if gamma is None else gamma
    search = GridSearchCV(SVC(kernel="precomputed", cache_size=1000), {"C": costs}, cv=inner_folds)
    search.fit(_kernel(rows[train], rows[train], width), labels[train])
    return 100 * float(search.best_estimator_.score(_kernel(rows[test], rows[train], width), labels[test]))


def _kernel(first: Any, second: Any, gamma: float) -> Any:
    """Return exp(-gamma |a - b|^2) of rows [n, D] and [m, D], [n, m]."""
    squared = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * first @ second.T
    return np.exp(-gamma * np.maximum(squared, 0.0))

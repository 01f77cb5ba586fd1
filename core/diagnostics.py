"""Cheap looks at the embeddings of a step, and words for what they show.

Shapes: M rows of a view, D embedding size, n rows looked at.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import cast
from warnings import warn

import torch
from torch import Tensor

from .distributed import all_sum, rank
from .errors import KontrastWarning
from .method import Method
from .objective import Objective
from .sampler import PairSampler
from .similarity import Similarity, normalize
from .values import Encoded

__all__ = ["CollapseWarning", "CollapseWatch", "diagnose", "effective_rank"]

_ROWS = 128  # enough to see a collapse; the cost does not grow with the batch


class CollapseWarning(KontrastWarning):
    """The embeddings of different samples have become alike."""


@torch.no_grad()
def diagnose(method: Method, encoded: Sequence[Encoded], taken: Collection[str] = ()) -> dict[str, Tensor]:
    """Return what the embeddings of a step look like, as scalars on their device, the mean over ranks.

    Of the first 128 rows of the first view with anchors: `effective_rank`; `embedding_std`: mean over dimensions of the
    standard deviation of normalised rows, times the root of D (1 when spread evenly, 0 when collapsed);
    `negative_similarity` and `positive_similarity`: mean cosines with rows of other samples, and with another view's
    row (the target's, where there is one) of the same sample; `uniformity` and `alignment` of the same couples as Wang
    and Isola 2020, arXiv:2005.10242, eq. 3 and 4 (t 2, alpha 2). A number without rows to take it from is left out.
    Further what the method's modules say of themselves (`metrics()`: a queue's fill and age), each name behind the
    module's path where several say it (`sampler.inner/queue_age`); and `momentum_drift`, the distance of a momentum
    copy from its original over the latter's norm.

    Args:
        method: whose step it was.
        encoded: the step's views.
        taken: names of other metrics, which modules say behind their path too.
    """
    device = encoded[0].ids.device
    seen = _look(encoded)
    # Every rank sends the same names, zero where it has too few rows: a rank may hold one row, or none.
    nothing = torch.zeros((), dtype=torch.float64, device=device)
    values = torch.stack([seen.get(name, (nothing, nothing))[0].double() for name in _NAMES])
    counted = torch.stack([seen.get(name, (nothing, nothing))[1].double() for name in _NAMES])
    # Where nothing is counted the value may be 0 / 0.
    sums, ranks = all_sum(torch.stack([torch.where(counted > 0, values, 0.0), counted]))
    found = {
        name: total / count
        for name, total, count, known in zip(_NAMES, sums, ranks, ranks.tolist(), strict=True)
        if known
    }
    said: list[tuple[str, str, float]] = []  # module, name, value
    for path, module in method.named_modules():
        own = getattr(module, "metrics", None) if isinstance(module, (PairSampler, Objective, Similarity)) else None
        if callable(own):
            said += [(path, name, float(value)) for name, value in cast(Mapping[str, float], own()).items()]
    often = Counter([*_NAMES, "momentum_drift", *taken, *(name for _, name, _ in said)])
    for path, name, number in said:
        found[f"{path}/{name}" if often[name] > 1 else name] = torch.tensor(number, device=device)
    if method.target_towers is not None:
        drift = _drift(method.target_towers, method.towers)
        if drift is not None:
            found["momentum_drift"] = drift
    return found


def effective_rank(rows: Tensor) -> Tensor:
    """Return exp of the entropy of the normalised singular values of rows [n, D]: 1 when all are multiples of one.

    Rows that are not finite count as zero rows; of zero rows alone the rank is 1.

    Source:
        Roy and Vetterli 2007, "The effective rank". From the eigenvalues of the smaller Gram matrix, in float64: of a
        float32 product's rounding the root is taken, and summed over all dimensions.
    """
    finite = torch.where(rows.isfinite().all(1, keepdim=True), rows, 0.0).double()
    finite = finite / finite.abs().amax().clamp(min=1e-300)  # squares of large numbers stay finite
    gram = finite @ finite.T if len(rows) <= rows.shape[1] else finite.T @ finite
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    shares = values / values.sum().clamp(min=1e-300)
    return torch.exp(-torch.special.xlogy(shares, shares).sum())


class CollapseWatch:
    """Says once, in words, when the embeddings have been alike for two looks in a row after the start of training.

    The first process alone speaks; all have the same numbers.

    Args:
        total: steps of the run; its first tenth is not judged, since untrained embeddings are often alike.
    """

    def __init__(self, total: int) -> None:
        self._from = total // 10
        self._alike = 0
        self._said = False

    def look(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Judge the metrics of some steps."""
        for row in rows:
            # Without other samples in the batch (one sample, twice) there is nothing to be alike.
            if not {"effective_rank", "negative_similarity"} <= row.keys() or row["step"] < self._from or self._said:
                continue
            # Alike up to the sign, the cosines cancel and the rank tells; of two healthy dimensions it may be 1.4.
            collapsed = row["effective_rank"] < 1.2 or row["negative_similarity"] > 0.99
            self._alike = self._alike + 1 if collapsed else 0
            if self._alike == 2 and rank() == 0:
                self._said = True
                warn(
                    f"the embeddings collapse: in step {int(row['step'])} different samples have a cosine of "
                    f"{row['negative_similarity']:.3f} and an effective rank of {row['effective_rank']:.1f}; likely "
                    "causes are a method without negatives that lost its predictor, stop-gradient or variance term, "
                    "a learning rate too high, or a temperature too high",
                    CollapseWarning,
                    stacklevel=2,
                )


_NAMES = (
    "effective_rank",
    "embedding_std",
    "negative_similarity",
    "uniformity",
    "positive_similarity",
    "alignment",
)


def _look(encoded: Sequence[Encoded]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return each number of this rank's rows, and 1 where it is known or 0."""
    anchors = next((view for view in encoded if view.rows is not None), None)
    if anchors is None or anchors.rows is None or len(anchors.rows) < 2:
        return {}
    rows, ids = normalize(anchors.rows[:_ROWS].float()), anchors.ids[:_ROWS]
    one = torch.ones((), device=rows.device)
    seen = {
        "effective_rank": (effective_rank(rows), one),
        "embedding_std": (rows.std(0).mean() * rows.shape[1] ** 0.5, one),
    }
    cosines = rows @ rows.T
    others = ids[:, None] != ids[None, :]  # copies of one sample may share a view
    count = others.sum()
    known = (count > 0).float()
    seen["negative_similarity"] = torch.where(others, cosines, 0.0).sum() / count, known
    seen["uniformity"] = (torch.where(others, (4 * cosines - 4).exp(), 0.0).sum() / count).log(), known
    for view in encoded:
        other = view.stream("target")
        if view is anchors or other.rows is None or other.rows.shape[1] != rows.shape[1] or not len(other.rows):
            continue
        # By id, not by place: views may order or repeat their samples as they like. Integers alone are compared with
        # the whole view; 128 of its rows are read.
        same = ids[:, None] == other.ids[None, :]
        cosine = (rows * normalize(other.rows[same.int().argmax(1)].float())).sum(1)
        paired = same.any(1)
        mean = torch.where(paired, cosine, 0.0).sum() / paired.sum()
        known = paired.any().float()
        seen["positive_similarity"], seen["alignment"] = (mean, known), (2 - 2 * mean, known)
        break
    return seen


def _drift(target: torch.nn.Module, online: torch.nn.Module) -> Tensor | None:
    pairs = list(zip(target.parameters(), online.parameters(), strict=True))
    if not pairs:
        return None
    moved = torch.stack([(old - new).square().sum() for old, new in pairs]).sum()
    return (moved / torch.stack([new.square().sum() for _, new in pairs]).sum().clamp(min=1e-30)).sqrt()

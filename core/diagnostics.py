"""Cheap looks at the embeddings of a step, and words for what they show.

Shapes: M rows of a view, D embedding size, n rows looked at.
"""

from collections.abc import Mapping, Sequence
from warnings import warn

import torch
from torch import Tensor

from .distributed import all_sum, world_size
from .method import Method
from .similarity import normalize
from .values import Encoded

__all__ = ["CollapseWarning", "CollapseWatch", "diagnose", "effective_rank"]

_ROWS = 128  # enough to see a collapse; the cost does not grow with the batch


class CollapseWarning(UserWarning):
    """The embeddings of different samples have become alike."""


@torch.no_grad()
def diagnose(method: Method, encoded: Sequence[Encoded]) -> dict[str, Tensor]:
    """Return what the embeddings of a step look like, as scalars on their device, the mean over ranks.

    `effective_rank` of the anchors; `embedding_std`: mean over dimensions of the standard deviation of normalised rows,
    times the root of D (1 when spread evenly, 0 when collapsed); `positive_similarity` and `negative_similarity`: mean
    cosines; `alignment` and `uniformity` as Wang and Isola 2020, arXiv:2005.10242, eq. 3 and 4 (alpha 2, t 2); what the
    method's modules say of themselves (`metrics()`: a queue's fill and age); and `momentum_drift`, the distance of a
    momentum copy from its original over the latter's norm.

    Args:
        method: whose step it was.
        encoded: the step's views.
    """
    found: dict[str, Tensor] = {}
    anchors = next((view for view in encoded if view.rows is not None), None)
    if anchors is not None and anchors.rows is not None and len(anchors.rows) > 1:
        rows = normalize(anchors.rows[:_ROWS].float())
        found["effective_rank"] = effective_rank(rows)
        found["embedding_std"] = rows.std(0).mean() * rows.shape[1] ** 0.5
        cosines = rows @ rows.T
        others = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        found["negative_similarity"] = cosines[others].mean()
        found["uniformity"] = (4 * cosines[others] - 4).exp().mean().log()
        paired = _positives(anchors, encoded)
        if paired is not None:
            found["positive_similarity"] = (rows[: len(paired)] * paired).sum(1).mean()
            found["alignment"] = 2 - 2 * found["positive_similarity"]
    if world_size() > 1 and found:
        stacked = all_sum(torch.stack([value.double() for value in found.values()])) / world_size()
        found = dict(zip(found, stacked.unbind(), strict=True))
    device = encoded[0].ids.device
    for module in method.modules():
        own = getattr(module, "metrics", None)
        if callable(own):
            found |= {name: torch.tensor(float(value), device=device) for name, value in own().items()}
    if method.target_towers is not None:
        found["momentum_drift"] = _drift(method.target_towers, method.towers)
    return found


def effective_rank(rows: Tensor) -> Tensor:
    """Return exp of the entropy of the normalised singular values of rows [n, D]: 1 when all are multiples of one.

    Source:
        Roy and Vetterli 2007, "The effective rank". From the eigenvalues of the smaller Gram matrix.
    """
    gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    # Of rows that are not finite the rank is 0: their run is about to end with a sentence of its own.
    values = torch.linalg.eigvalsh(gram.double().nan_to_num()).clamp(min=0).sqrt()
    shares = values / values.sum().clamp(min=1e-30)
    return torch.exp(-torch.special.xlogy(shares, shares).sum())


class CollapseWatch:
    """Says once, in words, when the embeddings have been alike for two looks in a row after the start of training.

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
            if "effective_rank" not in row or row["step"] < self._from or self._said:
                continue
            collapsed = row["effective_rank"] < 1.5 or row["negative_similarity"] > 0.99
            self._alike = self._alike + 1 if collapsed else 0
            if self._alike == 2:
                self._said = True
                warn(
                    f"the embeddings collapse: in step {int(row['step'])} different samples have a cosine of "
                    f"{row['negative_similarity']:.3f} and an effective rank of {row['effective_rank']:.1f}; likely "
                    "causes are a method without negatives that lost its predictor, stop-gradient or variance term, "
                    "a learning rate too high, or a temperature too high",
                    CollapseWarning,
                    stacklevel=2,
                )


def _positives(anchors: Encoded, encoded: Sequence[Encoded]) -> Tensor | None:
    """Return the normalised candidates of another view that stand where the anchors stand, if their ids say so."""
    for view in encoded:
        other = view.stream("target")
        if view is anchors or other.rows is None or len(other.rows) != len(anchors.ids):
            continue
        if anchors.rows is not None and other.rows.shape[1] == anchors.rows.shape[1]:
            return normalize(other.rows[:_ROWS].float())
    return None


def _drift(target: torch.nn.Module, online: torch.nn.Module) -> Tensor:
    pairs = list(zip(target.parameters(), online.parameters(), strict=True))
    moved = torch.stack([(old - new).square().sum() for old, new in pairs]).sum()
    return (moved / torch.stack([new.square().sum() for _, new in pairs]).sum().clamp(min=1e-30)).sqrt()

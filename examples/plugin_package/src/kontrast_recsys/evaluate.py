"""Recall and nDCG of a ranking of all items that a user was not trained on.

Shapes: U users who are asked about, I items, k items recommended to each, D embedding size.
"""

import torch
from torch import Tensor

import kontrast as kt
from kontrast_recsys.data import Interactions
from kontrast_recsys.encoder import LightGCN
from kontrast_recsys.graph import Graph

__all__ = ["ndcg", "ranking", "recall", "recommended"]


@torch.no_grad()
def recommended(user_rows: Tensor, item_rows: Tensor, users: Tensor, known: Graph, k: int = 20) -> Tensor:
    """Return the k items of highest score for each user, best first, int64 [U, k]; those it is known to chose left out.

    Args:
        user_rows: embeddings of all users, [*, D].
        item_rows: of all items, [I, D]; the score is the dot product.
        users: who is asked about, int64 [U].
        known: the training interactions.
        k: at most I.

    Raises:
        InvalidValueError: if `k` is not in 1..I.
    """
    if not 1 <= k <= len(item_rows):
        raise kt.InvalidValueError(f"`k` must be in 1..{len(item_rows)}, the number of items, got {k!r}")
    place = torch.full((len(user_rows),), -1, device=users.device)
    best = []
    for part in users.split(1024):
        scores = user_rows[part] @ item_rows.T
        place.fill_(-1)
        place[part] = torch.arange(len(part), device=part.device)
        masked = place[known.users] >= 0
        scores[place[known.users[masked]], known.items[masked]] = -torch.inf
        best.append(scores.topk(k).indices)
    return torch.cat(best)


def recall(top: Tensor, users: Tensor, relevant: Interactions) -> float:
    """Return the mean over users of the share of their held-out items that is among the recommended ones.

    Args:
        top: int64 [U, k].
        users: int64 [U], each with a held-out item.
        relevant: the held-out interactions.
    """
    hits, counts = _hits(top, users, relevant)
    return float((hits.sum(1) / counts).mean())


def ndcg(top: Tensor, users: Tensor, relevant: Interactions) -> float:
    """Return the mean over users of the discounted gain, 1 / log2(rank + 1) for each hit, over the best possible one.

    Args:
        top: int64 [U, k], best first.
        users: int64 [U], each with a held-out item.
        relevant: the held-out interactions.
    """
    hits, counts = _hits(top, users, relevant)
    k = top.shape[1]
    gains = 1 / torch.arange(2, k + 2, dtype=torch.float64, device=top.device).log2()
    best = gains.cumsum(0)[counts.clamp(max=k) - 1]
    return float(((hits * gains).sum(1) / best).mean())


def ranking(encoder: LightGCN, train: Interactions, test: Interactions, *, k: int = 20) -> dict[str, float]:
    """Return `recall` and `ndcg` at k over the users with held-out items; training items are never recommended.

    Args:
        encoder: what embeds the nodes of the training graph.
        train: what each user is known to have chosen.
        test: the held-out interactions.
        k: how many items are recommended, in 1..I.
    """
    device = encoder.users.weight.device
    graph = train.graph.to(device)
    users = torch.unique(test.users).to(device)
    with torch.no_grad():
        top = recommended(*encoder.embed(graph), users, graph, k)
    top, users = top.cpu(), users.cpu()
    return {"recall": recall(top, users, test), "ndcg": ndcg(top, users, test)}


def _hits(top: Tensor, users: Tensor, relevant: Interactions) -> tuple[Tensor, Tensor]:
    """Return which recommended items are held out, bool [U, k], and how many are held out of each user, [U]."""
    num_items = relevant.graph.num_items
    hits = torch.isin(users[:, None] * num_items + top, relevant.users * num_items + relevant.items)
    return hits, torch.bincount(relevant.users, minlength=relevant.graph.num_users)[users]

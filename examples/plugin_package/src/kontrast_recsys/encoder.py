"""LightGCN: embeddings of users and items, averaged over their neighbours in the graph.

Shapes: U users, I items, M rows of a view, D embedding size.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

import kontrast as kt
from kontrast_recsys.graph import Graph, Lookup

__all__ = ["LightGCN"]


class LightGCN(kt.Encoder):
    """The mean of an embedding table and of what `num_layers` rounds of averaging over neighbours make of it.

    Without layers it is matrix factorisation. The representation of a row is its user's.

    Args:
        num_users: U.
        num_items: I.
        size: D.
        num_layers: rounds, >= 0.

    Raises:
        InvalidValueError: if a number breaks its rule.

    Source:
        He et al. 2020, arXiv:2002.02126, eq. 3 to 8. Embeddings start as in SGL's code (Xavier, uniform).
    """

    def __init__(self, num_users: int, num_items: int, size: int = 64, num_layers: int = 3) -> None:
        super().__init__()
        for name, value, least in (
            ("num_users", num_users, 1),
            ("num_items", num_items, 1),
            ("size", size, 1),
            ("num_layers", num_layers, 0),
        ):
            if value < least:
                raise kt.InvalidValueError(f"`{name}` must be >= {least}, got {value!r}")
        self.representation_size = size
        self.num_layers = num_layers
        self.users = nn.Embedding(num_users, size)
        self.items = nn.Embedding(num_items, size)
        for table in (self.users, self.items):
            nn.init.xavier_uniform_(table.weight)

    def forward(self, inputs: Lookup) -> Tensor:
        """Return the users' embeddings [M, D]."""
        return self.embed(inputs.graph)[0][inputs.users]

    def embed(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Return the embeddings of all users [U, D] and all items [I, D].

        Raises:
            IncompatibleError: if the graph has other numbers of users or items.
        """
        counts = self.users.num_embeddings, self.items.num_embeddings
        if (graph.num_users, graph.num_items) != counts:
            raise kt.IncompatibleError(
                f"this LightGCN knows {counts[0]} users and {counts[1]} items, and the graph has {graph.num_users} and "
                f"{graph.num_items}; make it of the data set's own numbers (Splits.about)"
            )
        layer = torch.cat([self.users.weight, self.items.weight])
        with torch.autocast(layer.device.type, enabled=False):  # sparse products have no half precision everywhere
            adjacency = graph.adjacency.to(layer.dtype)
            total = layer
            for _ in range(self.num_layers):
                layer = torch.sparse.mm(adjacency, layer)
                total = total + layer
        users, items = (total / (self.num_layers + 1)).split(counts)
        return users, items

    def encode(self, view: kt.View, copies: Tensor) -> kt.Encoded:
        """Return the users as rows, and as streams what else a sampler of this domain reads of one propagation.

        Streams, whose ids are numbers of users or items instead of samples: `positives` and, where they were drawn,
        `negatives` [M, D]; `all-users` [U, D] and `all-items` [I, D], the same on every process; `initial`, what users,
        positives and negatives look up before any layer, one below the other.

        Args:
            view: M rows.
            copies: the key of each, int64 [M].
        """
        lookup: Lookup = view.inputs
        users, items = self.embed(lookup.graph)

        def stream(rows: Tensor, ids: Tensor, number: int) -> kt.Encoded:
            return kt.Encoded(rows, ids, kt.key(copies, torch.full_like(copies, number)))

        def table(rows: Tensor) -> kt.Encoded:
            ids = torch.arange(len(rows), device=rows.device)
            return kt.Encoded(rows, ids, torch.full_like(ids, -1))

        chosen = {"positives": lookup.positives}
        if lookup.negatives is not None:
            chosen["negatives"] = lookup.negatives
        streams = {name: stream(items[ids], ids, number) for number, (name, ids) in enumerate(chosen.items(), 1)}
        initial = torch.cat([self.users(lookup.users), *(self.items(ids) for ids in chosen.values())])
        ids = torch.cat([lookup.users, *chosen.values()])
        streams["initial"] = kt.Encoded(initial, ids, torch.full_like(ids, -1))
        streams |= {"all-users": table(users), "all-items": table(items)}
        rows = kt.Encoded(users[lookup.users], view.ids, copies, view.labels, view.groups)
        return replace(rows, streams=streams)

"""GRACE: a node and its copy in another view of the graph agree, against all other nodes of both views."""

from torch import nn

import kontrast as kt
from kontrast.plugins.objectives import NTXent

__all__ = ["grace"]


def grace(encoder: kt.Encoder, *, projection_size: int = 32, temperature: float = 0.2) -> kt.Method:
    """Return GRACE on a graph encoder.

    Each node u of the first view and v, the same node in the second, are anchors in turn; the negatives are all other
    nodes of both views, so the contrast is NT-Xent over the nodes' embeddings. A node is known by its place in the
    unaugmented graph, so views may drop nodes; a node that is in one view alone has no positive and is left out.

    Args:
        encoder: gives one embedding per node; the representation of a graph is its read-out.
        projection_size: width of the head's hidden layer and output.
        temperature: of the contrast, dimensionless.

    Source:
        Zhu et al. 2020, arXiv:2006.04131, eq. 1 and 2. Nodes of other graphs in the batch are negatives too.
    """
    size = encoder.representation_size
    return kt.Method(
        encoder=encoder,
        dense_projector=nn.Sequential(nn.Linear(size, projection_size), nn.ELU(), nn.Linear(projection_size, size)),
        sampler=kt.Elements(kt.InBatch()),
        objective=NTXent(temperature),
    )

"""GCC: two walks around one node agree, against a queue of walks around others."""

import kontrast as kt
from kontrast.plugins.objectives import InfoNCE

__all__ = ["gcc"]


def gcc(
    encoder: kt.Encoder,
    *,
    projection_size: int = 64,
    queue_size: int = 16384,
    momentum: float = 0.999,
    temperature: float = 0.07,
) -> kt.Method:
    """Return GCC with a momentum encoder and a queue, on an encoder of subgraphs.

    The first view is the query, the second the key, of the momentum copy: two random walks with restart from one node,
    told from keys of earlier batches. Take the augmenter `ego-subgraphs` and the encoder `structural-gin`, which read
    no features: what is learned is structure, and carries over to other graphs.

    Args:
        encoder: whose output is the representation.
        projection_size: of the embedding.
        queue_size: keys kept.
        momentum: share of the old key encoder kept in each step; 0.999 in the paper, 0.99 for short runs.
        temperature: of InfoNCE, dimensionless.

    Source:
        Qiu et al. 2020, arXiv:2006.09963, sections 3.2 and 3.3 ("MoCo" there). A sample's own old keys are not among
        its negatives, and the queue starts empty. The code's read-out adds up one Linear of each layer's sum and of
        the input's, with dropout, and that is its representation; here the representation is the layers' sums side by
        side, and the projector, one Linear of them, the embedding: the same sum of Linears, without the input's and
        without dropout. Walks: see `EgoSubgraphs`; samples that are nodes of one large graph: `EgoNetworks`.
    """
    return kt.Method(
        encoder=encoder,
        projector=kt.mlp(encoder.representation_size, projection_size),
        target=kt.Momentum(momentum),
        sampler=kt.Queue(kt.Positives("forward"), size=queue_size),
        objective=InfoNCE(temperature),
    )

"""MoCo v2: a query finds its key among a queue of keys from a slowly moving encoder."""

import kontrast as kt
from kontrast.plugins.objectives import InfoNCE

__all__ = ["moco_v2"]


def moco_v2(
    encoder: kt.Encoder,
    *,
    projection_size: int = 128,
    queue_size: int = 65536,
    momentum: float = 0.999,
    temperature: float = 0.2,
) -> kt.Method:
    """Return MoCo v2 on an encoder.

    The first view is the query q = g(f(x1)), the second the key k+ = g_k(f_k(x2)), f_k and g_k the momentum copies. The
    negatives are the keys of earlier batches, in a queue: its own batch's keys enter after the step.

    Args:
        encoder: f, whose output is the representation.
        projection_size: of the embedding.
        queue_size: keys kept, 65536 in the paper; 4096 for small data sets.
        momentum: share of the old key encoder kept in each step, 0.999 in the paper; 0.99 for short runs.
        temperature: of InfoNCE, dimensionless.

    Source:
        Chen et al. 2020, arXiv:2003.04297, on He et al. 2020, arXiv:1911.05722, algorithm 1. Differs from them: batch
        norms take the statistics of all processes where the papers shuffle samples between GPUs; the queue starts
        empty, not random; and a sample's own old keys are not among its negatives.
    """
    size = encoder.representation_size
    return kt.Method(
        encoder=encoder,
        projector=kt.mlp(size, size, projection_size, norm="none"),
        target=kt.Momentum(momentum),
        sampler=kt.Queue(kt.Positives("forward"), size=queue_size),
        objective=InfoNCE(temperature),
    )

"""GraphCL: a graph and its augmented copy agree, against the copies of the other graphs."""

import kontrast as kt
from kontrast.plugins.objectives import GraphCLContrast

__all__ = ["graphcl"]


def graphcl(encoder: kt.Encoder, *, temperature: float = 0.2) -> kt.Method:
    """Return GraphCL on a graph encoder.

    A graph encoder f and a projection head g of two Linears, as wide as the representation; the embedding of each
    graph's first view is told from the second views of the other graphs, by the cosine.

    Args:
        encoder: f, whose output is the representation.
        temperature: of the contrast, dimensionless.

    Source:
        You et al. 2020, arXiv:2010.13902, section 3.2, with the sizes of its unsupervised setting. As in its code, each
        view passes the encoder by itself, and only the first view's embeddings are anchors. Differs from it: Linears
        start as torch has them, there with weights by Xavier's uniform rule and zero biases.
    """
    size = encoder.representation_size
    return kt.Method(
        encoder=encoder,
        projector=kt.mlp(size, size, size, norm="none"),
        sampler=kt.InBatch("forward"),
        objective=GraphCLContrast(temperature),
        joint_forward=False,
    )

"""SimCLR: two augmented copies of each sample agree, against all other copies in the batch."""

import kontrast as kt
from kontrast.plugins.objectives import NTXent

__all__ = ["simclr"]


def simclr(
    encoder: kt.Encoder,
    *,
    hidden_size: int = 2048,
    projection_size: int = 128,
    temperature: float = 0.5,
    joint_forward: bool = True,
) -> kt.Method:
    """Return SimCLR on an encoder.

    A base encoder f and a projection head g; of the 2N embeddings in a batch (of all processes), each is told from the
    2N - 2 others that are not its sample's second copy, by NT-Xent on the cosine.

    Args:
        encoder: f, whose output is the representation.
        hidden_size: of the head.
        projection_size: of the embedding, 128 in the paper.
        temperature: of NT-Xent, dimensionless; 0.5 on CIFAR-10, 0.1 on ImageNet.
        joint_forward: whether both views pass the encoder together; False where inputs cannot be joined.

    Source:
        Chen et al. 2020, arXiv:2002.05709, algorithm 1. As in its code, the head has batch norms and both views pass
        the encoder together.
    """
    return kt.Method(
        encoder=encoder,
        projector=kt.mlp(encoder.representation_size, hidden_size, projection_size, last_norm=True),
        sampler=kt.InBatch(),
        objective=NTXent(temperature),
        joint_forward=joint_forward,
    )

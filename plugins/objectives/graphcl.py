"""GraphCL's contrast: the two views of a graph against the other graphs' second views.

Shapes: A anchors, C candidates, D embedding size.
"""

from kontrast.plugins.objectives.decoupled import DCL

__all__ = ["GraphCLContrast"]


class GraphCLContrast(DCL):
    """The denominator holds other graphs alone: `DCL` at GraphCL's temperature; take `InBatch("forward")` with it.

    For graph i with views z and z'::

        loss_i = -log( e^(cos(z_i, z'_i) / t) / sum_{j != i} e^(cos(z_i, z'_j) / t) )

    One direction, from the first view to the second, and no negatives from within a view: that is the sampler's part.

    Args:
        temperature: t above, dimensionless, > 0; 0.2 in the paper's unsupervised setting.

    Raises:
        InvalidValueError: if `temperature` is not > 0.

    Source:
        You et al. 2020, arXiv:2010.13902, eq. 3, which leaves the positive out of the denominator, as the code does.
    """

    def __init__(self, temperature: float = 0.2) -> None:
        super().__init__(temperature)

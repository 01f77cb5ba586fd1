"""N-pair loss: one positive against the other pairs' positives, on plain dot products.

Shapes: A anchors, C candidates, D embedding size, P positive pairs.
"""

from kontrast import InvalidValueError, Loss, Pairs, Term, row_statistics
from kontrast.plugins.objectives.info_nce import cross_entropies
from kontrast.plugins.objectives.softmax import SoftmaxObjective

__all__ = ["NPair"]


class NPair(SoftmaxObjective):
    """Multi-class cross entropy of the positive against the negatives, with the embeddings' lengths held small.

    For anchor f_i with positives P(i) and negatives N(i); take `Dot` as the method's similarity::

        loss_i = mean over p of  log( 1 + sum_{n in N(i)} e^(s_in - s_ip) )
        + regularization x mean over positive pairs of (|f_i|^2 + |f_p|^2) / 2

    Args:
        regularization: weight of the squared lengths, >= 0; 0.002 is usual.

    Raises:
        InvalidValueError: if `regularization` is not >= 0.

    Source:
        Sohn 2016, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective", NeurIPS, eq. 5 and section
        3.2.2. Batches with one pair per class are the sampler's part (`NoDuplicates` by label).
    """

    def __init__(self, regularization: float = 0.002) -> None:
        super().__init__(1.0)
        if not regularization >= 0:
            raise InvalidValueError(
                f"`regularization` must be >= 0, got {regularization!r}; it is the weight of a term"
            )
        self.regularization = regularization

    def forward(self, pairs: Pairs) -> Loss:
        """Return the cross entropy over anchors that have a positive, in nats, and the squared lengths.

        Args:
            pairs: anchors [A, D] against candidates [C, D].
        """
        rows = row_statistics(pairs)
        loss = Loss.over_rows(cross_entropies(rows) / rows.positive_count.clamp(min=1), rows.positive_count > 0)
        if not self.regularization:
            return loss
        anchors, positives = pairs.aligned()
        lengths = (anchors.square().sum() + positives.square().sum()) / 2
        return Loss((*loss.terms, Term("length", lengths, float(len(anchors)), self.regularization)))

    def extra_repr(self) -> str:
        """Show the regularization."""
        return f"regularization={self.regularization}"

"""What objectives on a softmax of logits share: a temperature, and that hard and debiased negatives reach them."""

import math

from kontrast import InvalidValueError, Needs, Objective

__all__ = ["SoftmaxObjective"]


class SoftmaxObjective(Objective):
    """An objective that reads the negatives by their log-sum-exp alone.

    Args:
        temperature: what similarities are divided by, dimensionless, > 0.

    Raises:
        InvalidValueError: if `temperature` is not > 0.
    """

    needs = Needs(negatives=True, softmax=True)

    def __init__(self, temperature: float) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise InvalidValueError(
                f"`temperature` must be > 0, got {temperature!r}; similarities are divided by it, usually 0.05-0.5"
            )
        self.temperature = temperature

    def extra_repr(self) -> str:
        """Show the temperature."""
        return f"temperature={self.temperature}"

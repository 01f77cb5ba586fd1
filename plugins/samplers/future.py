"""What comes later in a sequence, told from what does not.

Shapes: A elements of all sequences of this rank, C of all ranks, D size of a latent.
"""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from kontrast import (
    Block,
    Cosine,
    Encoded,
    Gives,
    InvalidValueError,
    Keys,
    Pairs,
    PairSampler,
    across_ranks,
    elements,
    key,
)

__all__ = ["FutureSteps"]


class FutureSteps(PairSampler):
    """A context predicts the latents k = 1, 2, ... steps later, each by a linear map of its own.

    One Pairs per step, `step_1` and so on, all weighing the same. An anchor is a mapped context; its positive is the
    latent k steps later in its sequence (by `coords`), and an anchor beyond whose end that lies has none. The encoder
    must give contexts as `dense`, and the latents as `dense` of the stream `latents`.

    Args:
        context_size: of a context.
        latent_size: D.
        steps: how far ahead, >= 1.
        negatives: `"sequence"`: other latents of the same sequence; `"any"`: of all sequences of all processes.

    Raises:
        InvalidValueError: if a parameter is out of range.

    Source:
        van den Oord et al. 2018, arXiv:1807.03748, section 2.
    """

    def __init__(
        self, context_size: int, latent_size: int, steps: int = 12, negatives: Literal["any", "sequence"] = "any"
    ) -> None:
        super().__init__()
        if steps < 1:
            raise InvalidValueError(f"`steps` must be >= 1, got {steps!r}")
        if negatives not in ("any", "sequence"):
            raise InvalidValueError(f"`negatives` must be any or sequence, got {negatives!r}")
        self.maps = nn.ModuleList(nn.Linear(context_size, latent_size, bias=False) for _ in range(steps))
        self.context_size, self.latent_size, self.steps, self.negatives = context_size, latent_size, steps, negatives

    @property
    def gives(self) -> Gives:
        """Negatives, from one sequence on."""
        return Gives(own_rows=False)

    def reads(self, num_views: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the first view: one is enough."""
        return (0,), (0,)

    def pairs(self, encoded: Sequence[Encoded]) -> list[Pairs]:
        """Return one Pairs per step."""
        context = elements(encoded[0])
        latents = context.stream("latents")
        candidates = across_ranks(latents) if self.negatives == "any" else latents
        assert context.rows is not None
        assert context.groups is not None
        assert context.coords is not None
        assert candidates.rows is not None
        scopes = (context.groups, candidates.groups) if self.negatives == "sequence" else (None, None)
        similarity = Cosine() if context.similarity is None else context.similarity
        return [
            Pairs(
                (
                    Block(
                        mapped(context.rows),
                        candidates.rows,
                        Keys(scope=scopes[0], match=key(context.groups, context.coords + step)),
                        Keys(scope=scopes[1], match=candidates.ids),
                    ),
                ),
                similarity,
                name=f"step_{step}",
                weight=1 / len(self.maps),
            )
            for step, mapped in enumerate(self.maps, 1)
        ]

"""What is checked and on what: subjects made from names or factories, embeddings to compare, and their loss.

Shapes: V views, N samples, D embedding size.
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kontrast import (
    Encoded,
    InvalidValueError,
    LearnedTemperature,
    Loss,
    Objective,
    Pairs,
    PairSampler,
    Similarity,
    embedded,
    get_record,
)

from .checks import ConformanceError

__all__ = [
    "Measured",
    "commit",
    "dressed",
    "example_views",
    "learned",
    "made",
    "measured",
    "pairs_of",
    "scored",
    "stateful",
]

T = TypeVar("T", bound=nn.Module)
SIZE = 8


def example_views(seed: int = 0, *, views: int = 2, samples: int = 6) -> Tensor:
    """Return the embeddings that a reference value is given for: normal numbers, float64 [V, N, 8]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, samples, SIZE, dtype=torch.float64, generator=generator)


def made(subject: Any, kind: type[Any], interface: type[T], fill: Mapping[str, Any]) -> tuple[str, Any, T]:
    """Return (name, factory, object) of what a check was asked about.

    Args:
        subject: an object, a registered name, or what makes an object when called.
        kind: the record by which a name is looked up.
        interface: what the object must be.
        fill: values of a factory's parameters by name, for those it has.

    Raises:
        InvalidValueError: if it needs further parameters, or is none of its kind.
        UnknownNameError: if nothing is registered under the name.
    """
    if isinstance(subject, interface):
        return type(subject).__name__, None, subject
    record = get_record(kind, subject) if isinstance(subject, str) else None
    factory = subject if record is None else record.load()
    name = subject if isinstance(subject, str) else getattr(subject, "__name__", type(subject).__name__)
    if not callable(factory):
        raise InvalidValueError(
            f"what is checked must be a kontrast.{interface.__name__}, its registered name or what makes one, "
            f"got {subject!r}"
        )
    parameters = inspect.signature(factory).parameters.values()
    given = {entry.name: fill[entry.name] for entry in parameters if entry.name in fill}
    lacking = [
        entry.name
        for entry in parameters
        if entry.default is entry.empty
        and entry.kind not in (entry.VAR_POSITIONAL, entry.VAR_KEYWORD)
        and entry.name not in given
    ]
    if lacking:
        raise InvalidValueError(
            f"`{name}` needs {', '.join(f'`{entry}`' for entry in lacking)}, which no check can make up; "
            "pass an object, or a function without parameters that makes one"
        )
    with nullcontext() if record is None else record.blamed():
        result = factory(**given)
    if not isinstance(result, interface):
        raise InvalidValueError(f"`{name}` must make a kontrast.{interface.__name__}, got {type(result).__name__}")
    return name, factory, result


def failures_of(subject: object, given: Mapping[str, str] | None) -> dict[str, str]:
    """Return the failures that are expected: those a class names (`expected_failures`), and those given."""
    own = getattr(subject, "expected_failures", None)
    return {**(own if isinstance(own, Mapping) else {}), **(given or {})}


def dressed(views: Sequence[Tensor] | Tensor, ids: Tensor | None = None) -> list[Encoded]:
    """Return plain embeddings as encoded views; samples 2k and 2k + 1 share a label, even and odd ones a group."""
    ids = torch.arange(len(views[0])) if ids is None else ids
    return embedded(*views, ids=ids, labels=ids // 2, groups=ids % 2)


def pairs_of(sampler: PairSampler, similarity: Similarity, encoded: Sequence[Encoded]) -> list[Pairs]:
    """Return a sampler's pairs as a method has them made: each view and each Pairs with the similarity."""
    sampled = sampler.pairs([replace(view, similarity=similarity) for view in encoded])
    if not isinstance(sampled, list) or not all(isinstance(part, Pairs) for part in sampled):
        raise ConformanceError(f"pairs() must return a list of kontrast.Pairs, got {type(sampled).__name__}")
    if not sampled:
        raise ConformanceError("pairs() returned an empty list; there is nothing to compare")
    return [replace(part, similarity=similarity) for part in sampled]


def scored(objective: Objective, pairs: Sequence[Pairs]) -> Loss:
    """Return an objective's loss on all of a sampler's pairs, as a method takes it."""
    losses = []
    for part in pairs:
        loss = objective(part)
        if not isinstance(loss, Loss):
            raise ConformanceError(
                f"forward() must return a kontrast.Loss, got {type(loss).__name__}; see kontrast.Loss.over_rows"
            )
        losses.append(loss.scaled(part.weight))
    return Loss.sum_of(losses)


@dataclass(frozen=True)
class Part:
    """A term of a loss on one rank, as numbers."""

    name: str
    sum: float
    count: float | None

    @property
    def value(self) -> float:
        """What it is worth by itself, unweighted."""
        return self.sum / (self.count or 1.0)


@dataclass(frozen=True)
class Measured:
    """A loss and its gradients.

    Args:
        value: over all ranks.
        embeddings: gradient with respect to this rank's embeddings [V, N, D].
        parameters: gradients of the parameters by name; of one that is not used, zero.
        terms: on this rank alone.
    """

    value: float
    embeddings: Tensor
    parameters: dict[str, Tensor]
    terms: tuple[Part, ...]

    def check_finite(self, what: str) -> None:
        """Raise unless value and gradients are finite."""
        if not torch.tensor(self.value).isfinite():
            raise ConformanceError(f"{what} the loss is {self.value}")
        for name, gradient in {"the embeddings": self.embeddings, **self.parameters}.items():
            if not gradient.isfinite().all():
                raise ConformanceError(f"{what} the gradient of {name} is not finite")


def measured(loss: Loss, embeddings: Tensor, *modules: nn.Module) -> Measured:
    """Return value and gradients of a loss on this rank; nothing is left in `grad`."""
    reduced = loss.reduced()
    named = {
        f"{type(module).__name__}.{name}": parameter
        for module in modules
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }
    inputs = [embeddings, *named.values()]
    gradients: list[Tensor | None] = [None] * len(inputs)
    if reduced.backward.requires_grad:
        gradients = list(torch.autograd.grad(reduced.backward, inputs, allow_unused=True))
    first, *others = (torch.zeros_like(x) if g is None else g for x, g in zip(inputs, gradients, strict=True))
    terms = tuple(
        Part(term.name, term.sum.item(), None if term.count is None else float(term.count)) for term in loss.terms
    )
    return Measured(float(reduced.value), first, dict(zip(named, others, strict=True)), terms)


def learned(similarity: Similarity, *, bias: bool) -> Similarity:
    """Return a similarity with parameters: itself if it has some, else scaled by a learned one, with a learned bias."""
    if any(True for _ in similarity.parameters()):
        return similarity
    return LearnedTemperature(copy.deepcopy(similarity), initial=0.8, bias=-0.1 if bias else None)


def commit(module: nn.Module, encoded: Sequence[Encoded]) -> None:
    """Have a module and all it contains take a batch into their state, as a method does after a step."""
    detached = [view.detach() for view in encoded]
    for part in module.modules():
        function: Callable[..., Any] | None = getattr(part, "commit", None)
        if callable(function):
            function(detached)


def stateful(module: nn.Module) -> bool:
    """Whether a module has state: parameters, buffers, extra state, or a `commit` of its own."""
    commits = (getattr(type(part), "commit", PairSampler.commit) for part in module.modules())
    return bool(module.state_dict()) or any(function is not PairSampler.commit for function in commits)

"""The conformance checks of what an encoder gives beside rows: elements, a loss of its own, and both on two processes.

Shapes: M rows of a view, T elements of a row, E flat elements, D representation size.
"""

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from kontrast import Augmenter, Data, Draws, Encoded, Encoder, Loss, View, all_sum, rank, world_size
from kontrast.norm import sync_batch_norms

from .checks import ConformanceError, NotCheckedError
from .domain import in_double
from .encoder import EncoderCase
from .processes import processes

__all__ = ["CHECKS"]


def elements_fit(case: EncoderCase) -> None:
    """Wrong elements: `dense`, `owner`, `valid` and `coords` of an encoding do not fit each other or the view."""
    view = case.view()
    encoded = case.encoder().encode(view, torch.arange(len(view.ids)))
    dense, rows = encoded.dense, len(view.ids)
    if dense is None:
        raise NotCheckedError("it gives no elements")
    if encoded.owner is None:
        _expect("dense", dense, dense.is_floating_point() and dense.ndim == 3 and len(dense) == rows, f"[{rows}, T, D]")
    else:
        _expect("dense", dense, dense.is_floating_point() and dense.ndim == 2, "[E, D], where there is an `owner`")
        owner, count = encoded.owner, len(dense)
        _expect("owner", owner, owner.dtype == torch.int64 and owner.shape == (count,), f"int64 [{count}]")
        if bool((owner.diff() < 0).any()) or set(owner.tolist()) - set(range(rows)):
            raise ConformanceError(f"`owner` must be rows of the view in ascending order, got {owner.tolist()}")
    shape = list(dense.shape[:-1])
    for name, dtype in (("valid", torch.bool), ("coords", torch.int64)):
        part: Tensor | None = getattr(encoded, name)
        if part is not None:
            _expect(name, part, part.dtype == dtype and list(part.shape) == shape, f"{dtype} {shape}")
    _carried(view, encoded)


def _expect(name: str, part: Tensor, right: bool, rule: str) -> None:
    if not right:
        raise ConformanceError(f"`{name}` must be {rule}, got {part.dtype} {list(part.shape)}")


def _carried(view: View, encoded: Encoded) -> None:
    """Hold what an encoder says of its elements to what the view says of those it was given."""
    if view.coords is not None:
        if encoded.coords is None:
            raise ConformanceError("the view has `coords`, and what encode() returns has none; carry them through")
        there: slice | Tensor = (
            slice(None) if view.valid is None or view.valid.shape != view.coords.shape else view.valid
        )
        same = encoded.coords.shape == view.coords.shape  # else it made other elements, patches for instance
        if same and not torch.equal(encoded.coords[there], view.coords[there]):
            raise ConformanceError("`coords` of what encode() returns are not those of the view's elements")
    if view.valid is not None and not view.valid.all():
        if encoded.valid is None:
            raise ConformanceError("the view has elements that do not exist, and encode() returns no `valid`")
        if encoded.valid.shape == view.valid.shape and bool((encoded.valid & ~view.valid).any()):
            raise ConformanceError("`valid` of what encode() returns holds elements that do not exist in the view")


def auxiliary_terms(case: EncoderCase) -> None:
    """A loss of its own that is none: no kontrast.Loss, not finite, without gradient, or of terms that come and go."""
    found = []
    for indices in (None, [0, 1][: case.count]):
        view = case.view(indices)
        loss: Any = case.encoder().encode(view, torch.arange(len(view.ids))).auxiliary
        if loss is not None and not isinstance(loss, Loss):
            raise ConformanceError(
                f"`auxiliary` must be a kontrast.Loss, got {type(loss).__name__}; see kontrast.Loss.over_rows"
            )
        found.append([] if loss is None else [(term.name, term.weight, term.count is None) for term in loss.terms])
        for term in () if loss is None else loss.terms:
            if not term.sum.isfinite():
                raise ConformanceError(f"the term `{term.name}` of `auxiliary` is not finite")
            if not term.sum.requires_grad:
                raise ConformanceError(
                    f"no gradient flows from the term `{term.name}` of `auxiliary`; what is only shown is a metric of "
                    "the loss"
                )
    if not any(found):
        raise NotCheckedError("it adds nothing to the loss")
    if found[0] != found[1]:
        raise ConformanceError(
            f"`auxiliary` has the terms {found[0]} of one batch and {found[1]} of another; each batch must "
            "have all of them, with a count of 0 where it has no row, since processes add up like terms"
        )


@dataclass(frozen=True)
class Part:
    """What one process has of a loss on an encoder's output: its value over all, and gradients as their average."""

    name: str
    value: float
    gradients: dict[str, Tensor]


def on_rank(encoder: Encoder, data: Data, augmenter: Augmenter, samples: Tensor, double: bool) -> list[Part]:
    """Return the gradients of a loss on this rank's rows, and of each term that the encoder adds."""
    encoder = copy.deepcopy(encoder).train()
    sync_batch_norms(encoder)
    own = samples.tensor_split(world_size())[rank()]
    view: View = augmenter(data.batch(own), Draws(0))[0]
    if double:
        view = replace(view, inputs=in_double(view.inputs))
    encoded = encoder.encode(view, torch.arange(len(view.ids)))
    losses: dict[str, Loss] = {}
    if encoded.rows is not None:
        weights = Draws(1).uniform(view.ids, encoded.rows.shape[1]).to(encoded.rows)  # of each sample its own
        losses["the representations"] = Loss.over_rows((encoded.rows * weights).sum(1))
    for term in () if encoded.auxiliary is None else encoded.auxiliary.terms:
        losses[f"the term `{term.name}` of `auxiliary`"] = Loss((replace(term, weight=1.0),))
    named = {name: parameter for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    parts = []
    for what, loss in losses.items():
        reduced = loss.reduced()
        found: tuple[Tensor | None, ...] = (None,) * len(named)
        if reduced.backward.requires_grad and named:
            inputs = list(named.values())
            found = torch.autograd.grad(reduced.backward, inputs, retain_graph=True, allow_unused=True)
        gradients = {
            name: all_sum(torch.zeros_like(parameter) if gradient is None else gradient) / world_size()
            for (name, parameter), gradient in zip(named.items(), found, strict=True)
        }
        parts.append(Part(what, float(reduced.value), gradients))
    return parts


def gradient_on_2_processes(case: EncoderCase) -> None:
    """Forgets a rank: two processes have another gradient, or loss of its own, than one on the joined batch."""
    encoder, samples = case.encoder(), torch.arange(min(5, len(case.data)))
    for module in encoder.modules():  # each process drops others
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    # Twice, then with other weights: where equal rows stand before a ReLU, rounding decides its side, in one of
    # the two perhaps; who forgets a rank does so in both.
    if not _found(case, encoder, samples):
        return
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator).to(parameter))
    if what := _found(case, encoder, samples):
        raise ConformanceError(
            f"{what} than one process on the joined batch; return sums and counts of the process's own rows, and take "
            "statistics of the batch over all ranks (kontrast.all_sum)"
        )


def _found(case: EncoderCase, encoder: Encoder, samples: Tensor) -> str:
    """Return what differs on two processes, in words; in float64 where encoder and inputs can be."""
    try:
        return _differs(case, encoder.double(), samples, double=True)
    except RuntimeError:  # such as a constant of float32 inside it, or inputs that stay so: then as they are
        return _differs(case, encoder.float(), samples, double=False)


def _differs(case: EncoderCase, encoder: Encoder, samples: Tensor, *, double: bool) -> str:
    given = (encoder, case.data, case.augmenter, samples, double)
    runs = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            runs.append(on_rank(*given))
    one, again = runs
    if _unlike(one, again):
        raise NotCheckedError("in training it draws random numbers, which differ from process to process")
    for number, found in enumerate(processes().run(2, on_rank, *given)):
        if what := _unlike(found, one):
            return f"rank {number} of two has {what}"
    return ""


def _unlike(found: list[Part], expected: list[Part]) -> str:
    """Return in words where two processes' losses differ from one's; empty: nowhere."""
    for ours, theirs in zip(found, expected, strict=True):
        is_term = theirs.name != "the representations"
        if is_term and not math.isclose(ours.value, theirs.value, rel_tol=1e-3, abs_tol=1e-7):
            return f"another value of {theirs.name} ({ours.value:.5g}, not {theirs.value:.5g})"
        largest = max((float(gradient.abs().max()) for gradient in theirs.gradients.values()), default=0.0)
        for name, gradient in theirs.gradients.items():
            if not torch.allclose(ours.gradients[name], gradient, rtol=1e-3, atol=1e-3 * largest + 1e-9):
                return f"another gradient of `{name}` from {theirs.name}"
    return ""


CHECKS = (elements_fit, auxiliary_terms, gradient_on_2_processes)

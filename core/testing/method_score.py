"""The conformance checks of what a method makes of encoded views: all terms, no state, and rows known by their keys.

Shapes: M rows of a view.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kontrast import Method, View

from .checks import ConformanceError, NotCheckedError
from .domain import taken
from .method import MethodCase, make_step
from .snapshot import difference, snapshot

__all__ = ["CHECKS"]

LENGTHS = 0.5


def auxiliary_counts(case: MethodCase) -> None:
    """Loses what its encoder adds to the loss (`Encoded.auxiliary`), or counts it otherwise than by its weight."""
    method = case.method_with_lengths(LENGTHS)
    views = case.views()
    loss, plain = method(views)[0].reduced(), case.method()(views)[0].reduced()
    if "encoder-lengths" not in loss.terms:
        raise ConformanceError("the encoder's own term is not among those of the loss; see Method.score")
    expected = float(plain.value) + LENGTHS * float(loss.terms["encoder-lengths"])
    if not math.isclose(float(loss.value), expected, rel_tol=1e-6, abs_tol=1e-9):
        raise ConformanceError(
            f"with the encoder's own term, of weight {LENGTHS}, the loss must be {expected:.7g}, got "
            f"{float(loss.value):.7g}"
        )


def scoring_changes_nothing(case: MethodCase) -> None:
    """State that changes before `commit`: scored twice, as gradient caching does, a batch has another loss or state."""
    method = case.method()
    make_step(method, case.views(), 0)  # so that a queue has something in it
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoded = method.encode(case.views(1))
        before, losses = snapshot(method.state_dict()), []
        for _ in range(2):
            torch.manual_seed(1)
            losses.append(float(method.score(encoded).reduced().value))
    if losses[0] != losses[1]:
        raise ConformanceError(f"scored twice, the same encodings have the losses {losses[0]!r} and {losses[1]!r}")
    if what := difference(before, snapshot(method.state_dict())):
        raise ConformanceError(f"scoring changed the state, which commit() alone may: {what}")


def rows_in_any_order(case: MethodCase) -> None:
    """Knows rows by their place: with a view's rows, and their keys, in another order the loss is another."""
    method = case.method()
    make_step(method, case.views(), 0)
    *others, last = case.views(1)
    expected, found = (_loss(method, [*others, view]) for view in (last, _turned(last)))
    if not math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-12):
        raise ConformanceError(
            f"with the rows of the last view in another order, keys alongside, the loss is {found:.9g}, not "
            f"{expected:.9g}; tell rows by their ids"
        )


def _loss(method: Method, views: list[View]) -> float:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return float(method(views)[0].reduced().value)


def _turned(view: View) -> View:
    """Return the view with its rows the other way round."""
    order = torch.arange(len(view.ids)).flip(0)

    def turned(part: Tensor | None) -> Tensor | None:
        if part is not None and part.ndim and len(part) != len(order):
            raise NotCheckedError("its views lay elements flat, which cannot be put in another order")
        return None if part is None else part[order]

    keys: dict[str, Any] = {
        name: turned(getattr(view, name)) for name in ("labels", "groups", "valid", "coords", "masked")
    }
    return replace(view, inputs=taken(view.inputs, order), ids=view.ids[order], **keys)


CHECKS = (auxiliary_counts, scoring_changes_nothing, rows_in_any_order)

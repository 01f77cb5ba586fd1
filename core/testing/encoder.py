"""The conformance checks of encoders.

Shapes: M rows of a view, D representation size.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kontrast import Augmenter, Data, Draws, Encoded, Encoder, EncoderRecord, Identity, Loss, View, as_encoder

from .checks import Check, ConformanceError, NotCheckedError, Report, checks_of, run_checks
from .domain import data_of, default_augmenter
from .scene import failures_of, made
from .snapshot import difference, snapshot
from .states import reloaded

__all__ = ["check_encoder", "encoder_checks"]


class EncoderCase:
    """An encoder and views that it reads."""

    def __init__(self, subject: Any, data: Data | None, augmenter: Augmenter | None) -> None:
        self.data, about = data_of(EncoderRecord, subject, data)
        self.name, _, module = made(subject, EncoderRecord, nn.Module, about)
        self._encoder = copy.deepcopy(as_encoder(module))
        if augmenter is None:
            augmenter = default_augmenter(subject, about) if data is None else None
        self.augmenter = Identity() if augmenter is None else augmenter
        self.count = min(4, len(self.data))

    def encoder(self) -> Encoder:
        """Return a copy of the encoder as it was given."""
        return copy.deepcopy(self._encoder)

    def view(self, indices: Sequence[int] | None = None) -> View:
        """Return the first view of some samples, by default of the first four."""
        batch = self.data.batch(torch.tensor(list(range(self.count) if indices is None else indices)))
        view: View = self.augmenter(batch, Draws(0))[0]
        return view

    @torch.no_grad()
    def encoded(self, view: View, encoder: Encoder) -> Encoded:
        """Return what `encode` makes of a view in evaluation mode."""
        return encoder.eval().encode(view, torch.arange(len(view.ids)))

    @torch.no_grad()
    def represented(self, view: View, encoder: Encoder | None = None) -> Tensor:
        """Return the representations in evaluation mode."""
        rows: Tensor = (self.encoder() if encoder is None else encoder).eval()(view.inputs)
        return rows


def returns_rows(case: EncoderCase) -> None:
    """Wrong shape or dtype: not one finite row per row of the view, of the size that it says and the weights' dtype."""
    view, encoder = case.view(), case.encoder()
    rows = encoder(view.inputs)
    if not isinstance(rows, Tensor) or rows.ndim != 2 or len(rows) != len(view.ids) or not rows.is_floating_point():
        found = f"{rows.dtype} {list(rows.shape)}" if isinstance(rows, Tensor) else type(rows).__name__
        raise ConformanceError(f"an encoder must return one row per row of the view, [{len(view.ids)}, D], got {found}")
    size = getattr(encoder, "representation_size", None)
    if size != rows.shape[1]:
        raise ConformanceError(f"`representation_size` is {size}, and the rows are of size {rows.shape[1]}")
    given = (part for part in (*encoder.parameters(), *encoder.buffers(), view.inputs) if isinstance(part, Tensor))
    dtypes = {part.dtype for part in given if part.is_floating_point()}
    if dtypes and rows.dtype not in dtypes:
        wanted = " or ".join(sorted(map(str, dtypes)))
        raise ConformanceError(f"rows must be {wanted}, as its weights and inputs are, got {rows.dtype}")
    if not rows.isfinite().all():
        raise ConformanceError("the representations are not finite")


def keys_carried(case: EncoderCase) -> None:
    """Loses keys: what `encode` returns has not the ids, copies, labels and groups of the view's rows."""
    view = case.view()
    copies = torch.arange(len(view.ids)) + 100
    encoded = case.encoder().encode(view, copies)
    wanted = {"ids": view.ids, "copies": copies, "labels": view.labels, "groups": view.groups}
    for name, keys in wanted.items():
        found = getattr(encoded, name)
        if keys is not None and (found is None or not torch.equal(keys, found)):
            raise ConformanceError(f"`{name}` of what encode() returns are not those of the view")


def encode_is_forward(case: EncoderCase) -> None:
    """Trains something else: in evaluation mode the rows of `encode` are not the representations of `forward`."""
    encoder, view = case.encoder(), replace(case.view(), masked=None)
    rows = case.encoded(view, encoder).rows
    if rows is None:
        raise NotCheckedError("encode() returns no rows")
    expected = case.represented(view, encoder)
    if rows.shape != expected.shape or not torch.allclose(rows, expected, rtol=1e-4, atol=1e-5):
        raise ConformanceError("encode() returns other rows than forward(), which is what remains after training")


def inputs_unchanged(case: EncoderCase) -> None:
    """Mutates its inputs: the view is not what it was."""
    view, encoder = case.view(), case.encoder()
    before = snapshot(view)
    encoder(view.inputs)
    encoder.encode(view, torch.arange(len(view.ids)))
    if what := difference(before, snapshot(view)):
        raise ConformanceError(f"a pass changed what it was given: {what}")


def gradient_of_every_parameter(case: EncoderCase) -> None:
    """Parameters that no gradient reaches, which DDP waits for, or whose gradient is not finite."""
    encoder, view = case.encoder(), case.view()
    outputs = list(_outputs(encoder.encode(view, torch.arange(len(view.ids)))))
    generator = torch.Generator().manual_seed(0)
    sums = [(part * torch.randn(part.shape, generator=generator).to(part)).sum() for part in outputs]
    torch.stack(sums).sum().backward()
    for name, parameter in encoder.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            raise ConformanceError(f"no gradient reaches the parameter `{name}`; leave it out, or freeze it")
        if not parameter.grad.isfinite().all():
            raise ConformanceError(f"the gradient of the parameter `{name}` is not finite")


def _outputs(encoded: Encoded) -> Iterator[Tensor]:
    """Yield all that a method may read of an encoding."""
    terms = encoded.auxiliary.terms if isinstance(encoded.auxiliary, Loss) else ()
    for part in (encoded.rows, encoded.dense, *(term.sum for term in terms)):
        if part is not None:
            yield part
    for stream in encoded.streams.values():
        yield from _outputs(stream)


def evaluation_is_fixed(case: EncoderCase) -> None:
    """In evaluation mode the same inputs give other rows the second time, or the state changes."""
    encoder, view = case.encoder().eval(), case.view()
    before = snapshot(encoder.state_dict())
    first, second = case.represented(view, encoder), case.represented(view, encoder)
    if not torch.equal(first, second):
        raise ConformanceError("in evaluation mode two passes over the same inputs differ; dropout left on?")
    if what := difference(before, snapshot(encoder.state_dict())):
        raise ConformanceError(f"a pass in evaluation mode changed the state: {what}")


def each_sample_by_itself(case: EncoderCase) -> None:
    """In evaluation mode a row or its elements depend on the rest of the batch, or a batch of one sample breaks."""
    encoder = case.encoder()
    whole = case.view()
    together, rows = case.encoded(whole, encoder), case.represented(whole, encoder)
    for index in range(case.count):
        alone = case.view([index])
        places = (whole.ids == alone.ids[0]).nonzero().flatten()
        if not close(case.represented(alone, encoder), rows[places]):
            raise ConformanceError(f"sample {index} alone has another representation than in a batch of {case.count}")
        single = case.encoded(alone, encoder)
        if together.dense is None:
            continue
        for row, place in enumerate(places.tolist()):
            if not close(elements_of(single, row), elements_of(together, place)):
                raise ConformanceError(f"sample {index} alone has other elements than in a batch of {case.count}")


def close(found: Tensor, expected: Tensor) -> bool:
    """Return whether representations are the same, as far as float32 and another order of sums allow."""
    scale = float(expected.abs().max().clamp(min=1e-6)) if expected.numel() else 1.0
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * scale)


def elements_of(encoded: Encoded, row: int) -> Tensor:
    """Return the embeddings of the elements that a row has, [n, D]."""
    assert encoded.dense is not None
    if encoded.owner is not None:
        return encoded.dense[encoded.owner == row]
    return encoded.dense[row] if encoded.valid is None else encoded.dense[row][encoded.valid[row]]


def state_is_whole(case: EncoderCase) -> None:
    """Loses state: loaded into a copy with other numbers, the representations are others."""
    encoder, other = case.encoder(), case.encoder()
    encoder.train()(case.view().inputs)  # so that running statistics move
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    reloaded(encoder, other)
    view = case.view()
    if not torch.equal(case.represented(view, encoder), case.represented(view, other)):
        raise ConformanceError("after save and load the representations are others; put all state into the state dict")


def can_be_copied(case: EncoderCase) -> None:
    """Cannot be copied, as a momentum target is, or the copy shares parameters with the original."""
    encoder, view = case.encoder(), case.view()
    encoder(view.inputs)  # what it keeps of a pass must not stand in the way
    other = copy.deepcopy(encoder)
    before = case.represented(view, encoder)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1)
    if not torch.equal(before, case.represented(view, other)):
        raise ConformanceError("a deep copy changes with the original; it holds parameters of it")


CHECKS = (
    returns_rows,
    keys_carried,
    encode_is_forward,
    inputs_unchanged,
    gradient_of_every_parameter,
    evaluation_is_fixed,
    each_sample_by_itself,
    state_is_whole,
    can_be_copied,
)


def encoder_checks(
    subject: Any,
    *,
    data: Data | None = None,
    augmenter: Augmenter | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> list[Check]:
    """Return the checks that `check_encoder` runs, with its arguments; for `parametrize_with_checks`."""
    from . import encoder_outputs

    case = EncoderCase(subject, data, augmenter)
    functions = (*CHECKS, *encoder_outputs.CHECKS)
    return checks_of(f"encoder {case.name}", functions, case, failures_of(case.encoder(), expected_failures))


def check_encoder(
    subject: Any,
    *,
    data: Data | None = None,
    augmenter: Augmenter | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> Report:
    """Hold an encoder to what the interface promises.

    Args:
        subject: an encoder or a plain module, a registered name, or a class or function that makes one.
        data: samples that it reads; by default its domain's, where it is registered under one.
        augmenter: what makes views of them; by default its domain's, or the samples as they are.
        expected_failures: by the name of a check, why it fails; one that passes is a failure.

    Returns:
        The report, where no check failed.

    Raises:
        ConformanceError: names every check that failed, with what was found.
    """
    checks = encoder_checks(subject, data=data, augmenter=augmenter, expected_failures=expected_failures)
    report = run_checks(checks)
    report.raise_failures()
    return report

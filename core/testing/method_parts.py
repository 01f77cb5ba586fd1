"""The conformance check of what a method's record names: the encoder and the augmenter that it is trained with."""

import inspect
import math

import torch

from kontrast import AdapterRecord, Draws, MethodRecord, as_encoder, get_record
from kontrast.method_parts import PARTS, named_part

from .checks import ConformanceError, NotCheckedError
from .domain import default_splits, made_for
from .method import SMALL, MethodCase

__all__ = ["CHECKS"]


def named_parts_fit(case: MethodCase) -> None:
    """The encoder or augmenter that its record names is not registered, of another domain, or gives it nothing."""
    record = get_record(MethodRecord, case.subject) if isinstance(case.subject, str) else None
    if record is None or not record.parts():
        raise NotCheckedError("no record of it names an encoder or an augmenter")
    named = {part: named_part(record, part, record.adapter) for part in PARTS}
    domains = [record.adapter, *(part.record.adapter for part in named.values() if part is not None)]
    if not any(domains):
        raise NotCheckedError("what it names is for any domain, and so is the method: there are no data to try it on")
    home = get_record(AdapterRecord, next(filter(None, domains)))
    splits, adapter = default_splits(home), home.load()()
    fill = {name: SMALL[name] for name in inspect.signature(record.load()).parameters if name in SMALL}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder, augmenter = (
            made_for(kind, getattr(adapter, f"default_{part}"), splits.about)
            if (found := named[part]) is None
            else made_for(kind, found.name, {**splits.about, **found.options})
            for part, kind in PARTS.items()
        )
        method = record.load()(as_encoder(encoder), **fill)
        indices = torch.arange(min(max(8, method.min_batch), len(splits.train)))
        reduced = method(augmenter(splits.train.batch(indices), Draws(0)))[0].reduced()
    if not reduced.rows or not math.isfinite(reduced.value):
        raise ConformanceError(
            f"on {len(indices)} samples of `{home.name}` the method compares {float(reduced.rows):g} rows, and its "
            f"loss is {float(reduced.value):g}, with {type(encoder).__name__} and {type(augmenter).__name__}"
        )


CHECKS = (named_parts_fit,)

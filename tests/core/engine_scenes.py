"""Small blocks that between them have every feature of a block, ways to cut them, and the comparison with the oracle.

Shapes: A anchors, C candidates, K slots of an anchor, D embedding size.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from engine_oracle import NumberRule
from torch import Tensor

import kontrast as kt
from kontrast import exponentials, walk

__all__ = ["CUTS", "SCENES", "agree", "cut", "ints", "leaves", "normal", "on", "scene"]

D = 3


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def ints(*shape: int, high: int, seed: int, low: int = -1) -> Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def keys(**values: Sequence[int] | Tensor) -> kt.Keys:
    return kt.Keys(**{name: torch.as_tensor(value, dtype=torch.int64) for name, value in values.items()})


def shared(
    ours: kt.Keys,
    theirs: kt.Keys,
    a: int = 7,
    c: int = 9,
    *,
    log_weights: Tensor | None = None,
    positives: bool = True,
    negatives: bool = True,
    rules: tuple[kt.Rule, ...] = (),
) -> tuple[kt.Block, ...]:
    rows = normal(a, D, seed=1), normal(c, D, seed=2)
    return (kt.Block(*rows, ours, theirs, None, log_weights, positives, negatives, rules),)


def mirrored(a: int = 7, **values: Sequence[int] | Tensor) -> tuple[kt.Block, ...]:
    rows, own = normal(a, D, seed=1), keys(**values)
    return (kt.Block(rows, rows, own, own),)


def drawn(a: int, *slots: int, seed: int) -> tuple[kt.Keys, kt.Keys]:
    """Few distinct keys of every kind, -1 among them, so that each rule decides somewhere and keys come twice."""
    names = {"scope": 2, "row": 9, "match": 4, "alias": 4}
    sides = (((a,), seed), (slots, seed + 10))
    ours, theirs = (
        keys(**{name: ints(*shape, high=high, seed=start + n) for n, (name, high) in enumerate(names.items())})
        for shape, start in sides
    )
    return ours, theirs


def without_scope(pair: tuple[kt.Keys, kt.Keys]) -> tuple[kt.Keys, kt.Keys]:
    return replace(pair[0], scope=None), replace(pair[1], scope=None)


def indexed(a: int, c: int, k: int, seed: int = 3) -> tuple[kt.Block, ...]:
    ours, theirs = drawn(a, a, k, seed=seed)
    index = ints(a, k, low=0, high=c, seed=seed)
    return (kt.Block(normal(a, D, seed=1), normal(c, D, seed=2), ours, theirs, index),)


def weighted(count: int, *, seed: int, off: Sequence[int] = ()) -> Tensor:
    weights = normal(count, seed=seed)
    weights[list(off)] = -math.inf
    return weights


def ruled(*rules: tuple[float, float]) -> tuple[kt.Rule, ...]:
    sides = ((normal(7, seed=20),), (normal(9, seed=21),)), ((normal(7, seed=22),), ())
    return tuple(kt.Rule(NumberRule(*rule), *sides[n]) for n, rule in enumerate(rules))


def two(count: int, *, seed: int) -> Tensor:
    """Labels of two classes and one row without: so many matches that they are compared in tiles, not listed."""
    labels = ints(count, high=2, low=0, seed=seed)
    labels[5] = -1
    return labels


def several() -> tuple[kt.Block, ...]:
    """A batch against itself, a queue, and slots of each anchor's own, weighted."""
    (own,) = mirrored(row=range(6), match=[0, 1, 2, 0, 1, 2], a=6)
    rows = own.anchors
    alias = keys(alias=[0, 1, 2, 0, 1, 2], match=[5, 5, 6, 6, 7, 8])
    queue = kt.Block(
        rows, normal(20, D, seed=4), alias, keys(alias=ints(20, high=5, seed=5), match=[5] * 3 + [-1] * 17)
    )
    ours, theirs = drawn(6, 6, 4, seed=7)
    index = ints(6, 4, low=0, high=5, seed=8)
    slots = kt.Block(rows, normal(5, D, seed=6), ours, theirs, index, weighted(24, seed=9, off=[]).view(6, 4))
    off = kt.Block(rows, normal(4, D, seed=11), alias, keys(match=[5, 6, 7, 8]), negatives=False)
    return own, queue, slots, off


def scopes(ours: Sequence[int] | Tensor, theirs: Sequence[int] | Tensor) -> tuple[kt.Block, ...]:
    a, c = len(ours), len(theirs)
    match = [i % 3 for i in range(a)], [(i + 1) % 4 for i in range(c)]
    return shared(keys(scope=ours, match=match[0]), keys(scope=theirs, match=match[1]), a, c)


MATCH = keys(match=[0, 1, 2, 1, 5, 0, -1]), keys(match=[0, 1, 2, 3, 4, 0, 0, -1, 2])
SCENES: dict[str, Callable[[], tuple[kt.Block, ...]]] = {
    "no keys": lambda: shared(kt.Keys(), kt.Keys()),
    "match": lambda: shared(*MATCH),
    "every key": lambda: shared(*drawn(9, 11, seed=0), 9, 11),
    "every key but scope": lambda: shared(*without_scope(drawn(9, 11, seed=1)), 9, 11),
    "scope of one side": lambda: shared(replace(MATCH[0], scope=torch.arange(7)), MATCH[1]),
    "views, mirrored": lambda: mirrored(row=range(7), match=[0, 1, 2, 0, 1, 2, 0]),
    "row keys that repeat, mirrored": lambda: mirrored(row=[0, 1, 2, 3, 3, -1, 0], match=[0, 1, 2, 0, 1, 2, 0]),
    "two labels, mirrored": lambda: mirrored(row=range(36), match=two(36, seed=3), a=36),
    "two labels": lambda: shared(keys(match=two(35, seed=3)), keys(match=two(39, seed=4)), 35, 39),
    "labels, samples and copies, mirrored": lambda: mirrored(
        row=[*range(38), 0, 7], match=[-1, -1, *two(38, seed=3).tolist()], alias=[n % 20 for n in range(40)], a=40
    ),
    "labels and samples": lambda: shared(
        keys(row=range(39), match=[-1, -1, *two(37, seed=3).tolist()], alias=[n % 9 for n in range(39)]),
        keys(row=range(30, 73), match=[-1, *two(42, seed=4).tolist()], alias=[-1, *(n % 30 for n in range(42))]),
        39,
        43,
    ),
    "dense alias": lambda: shared(
        keys(match=range(35), alias=two(35, seed=3)), keys(match=range(39), alias=two(39, seed=4)), 35, 39
    ),
    "one key in two parts": lambda: shared(
        replace(MATCH[0], alias=MATCH[0].match), replace(MATCH[1], alias=MATCH[1].match)
    ),
    "a queue": lambda: shared(keys(alias=[0, 1, 2]), keys(alias=ints(25, high=6, seed=1)), 3, 25),
    "slots": lambda: indexed(6, 5, 4),
    "more slots than candidates": lambda: indexed(3, 4, 30),
    "equal scopes": lambda: scopes([0, 1, 2] * 3, [1, 2, 0] * 4),
    "scopes in order": lambda: scopes([0] * 4 + [1] * 4 + [2] * 4, [0] * 3 + [1] * 3 + [2] * 3 + [5] * 2),
    "scopes in order, mirrored": lambda: mirrored(
        9, row=range(9), match=[0, 1, 0, 1, 1, 1, 2, 2, 3], scope=[0, 0, 0, 1, 1, 1, 2, 2, 2]
    ),
    "scope -1, mirrored": lambda: mirrored(
        9, row=range(9), match=[0, 1, 0, 1, 1, 1, 2, 2, 3], scope=[0, 0, 0, -1, 1, 1, -1, -1, 2]
    ),
    "scopes in order, the last smaller": lambda: scopes([0] * 4 + [1] * 4 + [2] * 3, [0] * 4 + [1] * 3 + [2] * 4),
    "ragged scopes": lambda: scopes([5, 0, 0, 0, 2, 2, 5, 5, 0, 7, 7], [0, 5, 2, 2, 2, 2, 0, 0, 5, 7, 0, 0]),
    "scopes that do not meet": lambda: scopes([0, 0, 1, 3, 3], [1, 2, 2, 4, 4, 4]),
    "scope -1": lambda: scopes([-1, 0, -1, 0, -1], [0, -1, -1, 0, -1, 0]),
    "nothing in scope": lambda: scopes([-1, -1], [-1, -1, -1]),
    "one large scope": lambda: scopes([4] * 13, [4] * 11),
    "without positives": lambda: shared(*MATCH, positives=False),
    "without negatives": lambda: shared(*MATCH, negatives=False),
    "with neither": lambda: shared(*MATCH, positives=False, negatives=False),
    "slots without negatives": lambda: tuple(replace(block, negatives=False) for block in indexed(6, 5, 4)),
    "log-weights": lambda: shared(*MATCH, log_weights=weighted(9, seed=5, off=[2, 3, 4, 7])),
    "log-weights of slots": lambda: tuple(
        replace(block, log_weights=weighted(24, seed=6).view(6, 4)) for block in indexed(6, 5, 4)
    ),
    "log-weights of positives alone": lambda: shared(
        *MATCH, negatives=False, log_weights=weighted(9, seed=5, off=[2, 5])
    ),
    "log-weights in scopes": lambda: tuple(
        replace(block, log_weights=weighted(12, seed=5)) for block in scopes([0, 1, 2] * 3, [1, 2, 0, 1] * 3)
    ),
    "a rule": lambda: shared(*MATCH, rules=ruled((0.1, -0.7))),
    "two rules, one of them ignores": lambda: shared(*MATCH, rules=ruled((0.1, -0.7), (-0.2, -math.inf))),
    "a rule that ignores all": lambda: shared(*MATCH, rules=(kt.Rule(NumberRule(-1e9, -math.inf)),)),
    "rules and log-weights": lambda: shared(*MATCH, rules=ruled((0.1, -0.7)), log_weights=weighted(9, seed=5, off=[3])),
    "several blocks": several,
    "no candidates": lambda: shared(MATCH[0], keys(match=[]), c=0),
    "no anchors": lambda: shared(keys(match=[]), MATCH[1], a=0),
    "one row": lambda: mirrored(row=[0], match=[0], a=1),
    "one pair": lambda: shared(keys(match=[3]), keys(match=[4]), 1, 1),
}
# Scores in a tile, and whether tiles are kept for the backward pass.
CUTS: dict[str, tuple[int, bool] | None] = {
    "whole": None,
    "tiles of 4, kept": (4, True),
    "tiles of 4": (4, False),
    "tiles of 18": (18, False),
}


def cut(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Hold both ways through the engine to tiles of this size."""
    setting = CUTS[name]
    if setting is not None:
        entries, kept = setting
        limit = {"cpu": 1 << 40 if kept else 0}
        for module, attribute, value in (
            (exponentials, "ENTRIES", {"cpu": entries}),
            (exponentials, "STACKED", {"cpu": entries}),
            (exponentials, "KEPT_BYTES", limit),
            (exponentials, "KEPT_TIMES", 0),
            (walk, "ENTRIES", {"cpu": entries}),
            (walk, "KEPT", limit),
        ):
            monkeypatch.setattr(module, attribute, value)


def scene(name: str, similarity: kt.Similarity | None = None) -> kt.Pairs:
    return kt.Pairs(SCENES[name](), kt.Cosine() if similarity is None else similarity)


def leaves(pairs: kt.Pairs) -> list[Tensor]:
    """Return the tensors of embeddings, each once: the anchors, then each block's candidates."""
    found = {id(tensor): tensor for block in pairs.blocks for tensor in (block.anchors, block.candidates)}
    return list(found.values())


def on(pairs: kt.Pairs, tensors: Sequence[Tensor]) -> kt.Pairs:
    """Return the pairs with other embeddings in the place of `leaves`."""
    new = {id(old): tensor for old, tensor in zip(leaves(pairs), tensors, strict=True)}
    blocks = (replace(b, anchors=new[id(b.anchors)], candidates=new[id(b.candidates)]) for b in pairs.blocks)
    return replace(pairs, blocks=tuple(blocks))


Engine = Callable[[kt.Pairs, Tensor], dict[str, Tensor]]
Oracle = Callable[[kt.Pairs, list[float]], dict[str, list[float]]]


def agree(
    pairs: kt.Pairs, engine: Engine, oracle: Oracle, *, frozen: bool = False, tolerance: float = 1e-11, seed: int = 0
) -> None:
    """Hold the engine's values to the oracle's, and its gradients to the slope of the oracle in a random direction.

    What is handed back for every output is not zero anywhere, also where a row has no value.

    Args:
        pairs: in float64.
        engine: (pairs, offset [A]) -> outputs [A] by name.
        oracle: the same in numbers.
        frozen: whether only the anchors get a gradient.
        tolerance: of the values.
        seed: of offset and directions.
    """
    tensors = leaves(pairs)
    offset = normal(len(pairs.anchors), seed=seed + 90)
    parameters = [p for p in pairs.similarity.parameters() if not frozen]
    moved = tensors[:1] if frozen else tensors
    inputs = [tensor.clone().requires_grad_() for tensor in (*moved, offset)]
    built = on(pairs, [*inputs[:-1], *tensors[len(moved) :]])
    found = engine(built, inputs[-1])
    expected = oracle(built, offset.tolist())
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value.tolist() == pytest.approx(expected[name], rel=tolerance, abs=tolerance), name
    smooth = {name: value for name, value in found.items() if value.requires_grad}
    upstream = {name: normal(*value.shape, seed=seed + n) for n, (name, value) in enumerate(smooth.items())}
    wanted = [*inputs, *parameters]
    slopes = (
        torch.autograd.grad(
            list(smooth.values()), wanted, list(upstream.values()), allow_unused=True, retain_graph=True
        )
        if smooth
        else [None] * len(wanted)
    )
    gradients = [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, slopes, strict=True)]
    assert all(gradient.isfinite().all() for gradient in gradients)
    directions = [normal(*tensor.shape, seed=seed + 50 + n) for n, tensor in enumerate(wanted)]
    step, ends = 1e-6, list[float]()
    origin = [tensor.detach().clone() for tensor in wanted]
    for sign in (1, -1):
        with torch.no_grad():
            for tensor, start, direction in zip(wanted, origin, directions, strict=True):
                tensor.copy_(start + sign * step * direction)
        values = oracle(built, inputs[-1].tolist())
        ends.append(
            math.fsum(
                u * value
                for name, us in upstream.items()
                for u, value in zip(us.tolist(), values[name], strict=True)
                if value != -math.inf
            )
        )
    with torch.no_grad():
        for tensor, start in zip(wanted, origin, strict=True):
            tensor.copy_(start)
    slope = (ends[0] - ends[1]) / (2 * step)
    along = math.fsum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True))
    size = math.sqrt(math.fsum(g.square().sum().item() for g in gradients))
    assert along == pytest.approx(slope, rel=1e-6, abs=1e-7 * (1 + size))

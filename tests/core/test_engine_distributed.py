"""The engine on 2 and 3 processes with uneven batches: the gradients of every parameter are those of one process."""

import functools
from collections.abc import Callable

import pytest
import torch
from engine_scenes import ints, normal
from gloo import GlooPool
from torch import Tensor, nn

import kontrast as kt
from kontrast.block import Block
from kontrast.plugins.objectives import NTXent

SIZES = (41, 40, 37)  # uneven for 2 processes and for 3; labels of two classes are beyond what is listed


class Both(kt.Objective):
    """NT-Xent, and where negatives are counted one by one a sum over pairs, in which a bias is felt."""

    needs = kt.Needs(negatives=True, softmax=True)

    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        losses = [NTXent(0.7)(pairs)]
        if not pairs.hardness and not pairs.positive_prior:
            rows = kt.row_statistics(pairs)
            for of, sign in (("positive", -1.0), ("negative", 1.0)):
                function = functools.partial(_softplus, sign=sign)
                sums = kt.row_sums(pairs, function, of=of, offset=rows.positive_mean)  # type: ignore[arg-type]
                losses.append(kt.Loss.over_rows(sums, rows.positive_count > 0))
                sums = kt.row_sums(pairs, function, of=of)  # type: ignore[arg-type]
                losses.append(kt.Loss.over_rows(sums, rows.positive_count > 0))
        return kt.Loss.sum_of(losses)


def _softplus(logits: Tensor, sign: float) -> Tensor:
    return torch.nn.functional.softplus(sign * logits)


class SameGroup(kt.PairSampler):
    """Anchors against the rows of all ranks of their own group (-1: of none), each group of another size."""

    def pairs(self, encoded: list[kt.Encoded]) -> list[kt.Pairs]:  # type: ignore[override]
        rows = kt.stack(encoded)
        return [kt.Pairs.between(rows, kt.across_ranks(rows), match="ids", scope="groups")]


class Weighted(kt.InBatch):
    """Negatives with a rule that looks at scores, the general way through the engine."""

    def pairs(self, encoded: list[kt.Encoded]) -> list[kt.Pairs]:  # type: ignore[override]
        rule = kt.Rule(_half_of_the_near)
        return [
            kt.Pairs(tuple(_with_rule(block, rule) for block in pairs.blocks), pairs.similarity, rows=pairs.rows)
            for pairs in super().pairs(encoded)
        ]


def _with_rule(block: Block, rule: kt.Rule) -> Block:
    return Block(block.anchors, block.candidates, block.anchor_keys, block.candidate_keys, rules=(rule,))


def _half_of_the_near(scores: Tensor, anchors: tuple[Tensor, ...], candidates: tuple[Tensor, ...]) -> Tensor:
    return torch.zeros_like(scores).masked_fill(scores > 0.5, -0.7)


def _queue() -> kt.PairSampler:
    return kt.Debiased(kt.HardNegatives(kt.Queue(kt.InBatch(), size=130), 0.7), 0.1)


SAMPLERS: dict[str, Callable[[], kt.PairSampler]] = {
    "plain": kt.InBatch,
    "across views": lambda: kt.InBatch("cross"),
    "queue, hard, debiased": _queue,
    "labels": lambda: kt.InBatch(match="labels"),
    "labels, hard": lambda: kt.HardNegatives(kt.InBatch(match="labels"), 0.5),
    "labels, queue": lambda: kt.Queue(kt.InBatch(match="labels"), size=130),
    "scopes": SameGroup,
    "a rule": Weighted,
    "hardest": lambda: kt.HardestNegatives(kt.InBatch(), 3),
    "semi-hard": lambda: kt.SemiHardNegatives(kt.InBatch()),
}
SIMILARITIES: dict[str, Callable[[], kt.Similarity]] = {
    "learned temperature": lambda: kt.LearnedTemperature(initial=0.4),
    "learned temperature and bias": lambda: kt.LearnedTemperature(kt.Dot(), initial=0.9, bias=-0.5),
    "learned bilinear": lambda: kt.LearnedTemperature(kt.Bilinear(4), initial=0.9),
    "network": lambda: kt.MLP(4, 3),
}


def _steps(sampler: str, similarity: str) -> list[dict[str, Tensor]]:
    """Return every parameter's gradient and the loss in each step, averaged over ranks as DDP does."""
    torch.manual_seed(0)
    method = kt.Method(
        nn.Sequential(nn.Linear(6, 5), nn.Tanh()),
        projector=nn.Linear(5, 4),
        sampler=SAMPLERS[sampler](),
        objective=Both(),
        similarity=SIMILARITIES[similarity](),
    ).double()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.003)
    found = []
    for step, size in enumerate(SIZES):
        ids = torch.arange(size) + 100 * step
        ids[1] = ids[0] if step else ids[1]  # one sample twice in a batch
        own = torch.arange(size).tensor_split(kt.world_size())[kt.rank()]
        labels, groups = ints(size, high=2, low=0, seed=step), ints(size, high=7, seed=step + 9).clamp(max=4)
        labels[3] = -1
        views = [
            kt.View(normal(size, 6, seed=10 * step + v)[own], ids[own], labels=labels[own], groups=groups[own])
            for v in range(2)
        ]
        loss, encoded = method(views)
        reduced = loss.reduced()
        optimizer.zero_grad()
        reduced.backward.backward()
        gradients = {"loss": reduced.value.double()}
        for name, parameter in method.named_parameters():
            assert parameter.grad is not None, name
            parameter.grad = kt.all_sum(parameter.grad) / kt.world_size()
            gradients[name] = parameter.grad.clone()
        optimizer.step()
        method.after_step([view.detach() for view in encoded], step / len(SIZES))
        found.append(gradients)
    return found


@pytest.mark.parametrize(
    ("sampler", "similarity"),
    [
        *((sampler, "learned temperature") for sampler in SAMPLERS),
        *(("labels", similarity) for similarity in SIMILARITIES if similarity != "learned temperature"),
        ("plain", "learned temperature and bias"),
        ("plain", "learned bilinear"),
    ],
)
@pytest.mark.parametrize("world", [2, 3])
def test_processes_are_one(gloo: GlooPool, world: int, sampler: str, similarity: str) -> None:
    expected = _steps(sampler, similarity)
    assert all(gradient.abs().max() > 1e-6 for gradients in expected for gradient in gradients.values())
    for steps in gloo.run(world, _steps, sampler, similarity):
        for step, (gradients, one) in enumerate(zip(steps, expected, strict=True)):
            assert gradients.keys() == one.keys()
            for key, gradient in gradients.items():
                torch.testing.assert_close(gradient, one[key], rtol=1e-6, atol=1e-9, msg=f"step {step}: {key}")

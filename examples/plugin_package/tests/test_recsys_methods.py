"""The losses against the formulas in plain loops, the queue of items, and the metrics."""
# ruff: noqa: D103
# pyright: reportMissingImports=false

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kontrast_recsys.augment import SGLViews
from kontrast_recsys.data import Interactions, load
from kontrast_recsys.encoder import LightGCN
from kontrast_recsys.evaluate import ndcg, ranking, recall, recommended
from kontrast_recsys.graph import Graph, Lookup
from kontrast_recsys.methods import clrec, lightgcn, sgl
from kontrast_recsys.samplers import AllEntities, Clicks, Ranking

import kontrast as kt

DATA = load("blocks")
INDICES = torch.tensor([3, 900, 41, 5, 4, 777])


def encoder(**options: Any) -> LightGCN:
    torch.manual_seed(1)
    return LightGCN(**DATA.about, **{"size": 5, **options}).double()


def views() -> list[kt.View]:
    made: list[kt.View] = SGLViews(0.2)(DATA.train.batch(INDICES), kt.Draws(7))
    return made


def embed_in_loops(model: LightGCN, graph: Graph) -> tuple[list[list[float]], list[list[float]]]:
    start = torch.cat([model.users.weight, model.items.weight]).tolist()
    joined: list[list[int]] = [[] for _ in start]
    for user, item in zip(graph.users.tolist(), graph.items.tolist(), strict=True):
        joined[user].append(graph.num_users + item)
        joined[graph.num_users + item].append(user)
    layer, total = start, [list(row) for row in start]
    for _ in range(model.num_layers):
        layer = [
            [
                sum(layer[j][d] / math.sqrt(len(joined[i]) * len(joined[j])) for j in joined[i])
                for d in range(len(start[0]))
            ]
            for i in range(len(start))
        ]
        total = [[x + y for x, y in zip(a, b, strict=True)] for a, b in zip(total, layer, strict=True)]
    mean = [[x / (model.num_layers + 1) for x in row] for row in total]
    return mean[: graph.num_users], mean[graph.num_users :]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def contrast_in_loops(first: list[list[float]], second: list[list[float]], nodes: list[int]) -> float:
    unit_1, unit_2 = ([[x / math.hypot(*row) for x in row] for row in rows] for rows in (first, second))
    return sum(
        math.log(sum(math.exp((dot(unit_1[i], other) - dot(unit_1[i], unit_2[i])) / 0.2) for other in unit_2))
        for i in nodes
    )


def test_sgl_is_the_authors_loss_over_the_batch_size() -> None:
    model, made = encoder(l2=0.03), views()
    lookup: Lookup = made[0].inputs
    assert lookup.negatives is not None
    users, positives, negatives = (part.tolist() for part in (lookup.users, lookup.positives, lookup.negatives))
    embedded = [embed_in_loops(model, view.inputs.graph) for view in made]
    user_rows, item_rows = embedded[0]
    ranking = sum(
        -math.log(1 / (1 + math.exp(dot(user_rows[u], item_rows[n]) - dot(user_rows[u], item_rows[p]))))
        for u, p, n in zip(users, positives, negatives, strict=True)
    )
    lengths = sum(
        dot(row, row) / 2
        for table, ids in ((model.users, users), (model.items, positives), (model.items, negatives))
        for row in table.weight[ids].tolist()
    )
    contrast = contrast_in_loops(embedded[1][0], embedded[2][0], users)
    contrast += contrast_in_loops(embedded[1][1], embedded[2][1], positives)
    expected = (ranking + 0.1 * contrast + 0.03 * lengths) / len(INDICES)
    loss, _ = sgl(model)(made)
    assert math.isclose(float(loss.reduced().value), expected, rel_tol=1e-6)
    loss, _ = lightgcn(model)(made)
    assert math.isclose(float(loss.reduced().value), (ranking + 0.03 * lengths) / len(INDICES), rel_tol=1e-6)


def test_lightgcn_encodes_no_view_that_it_does_not_read() -> None:
    assert [view.rows is None for view in lightgcn(encoder()).encode(views())] == [False, True, True]


def test_two_views_are_too_few_for_a_contrast() -> None:
    with pytest.raises(kt.IncompatibleError, match=r"contrasts views 1 and 2.*there are 2 views"):
        AllEntities(Ranking()).pairs(sgl(encoder()).encode(views())[:2])


def test_batches_without_negatives_are_refused() -> None:
    with pytest.raises(kt.IncompatibleError, match="reads the stream `negatives`"):
        lightgcn(encoder())(kt.Identity(1)(DATA.train.batch(INDICES), kt.Draws(0)))


@pytest.mark.parametrize(("make", "large_batch"), [(sgl, "accumulate"), (sgl, "cache"), (clrec, "cache")])
def test_micro_batches_are_exact(make: Callable[[kt.Encoder], kt.Method], large_batch: Any) -> None:
    def fit(micro_batch_size: int) -> dict[str, torch.Tensor]:
        model = encoder(l2=0.3)
        run = kt.Run(
            make(model),
            DATA.train,
            augmenter=SGLViews(),
            epochs=1,
            batch_size=350,
            micro_batch_size=micro_batch_size,
            large_batch=large_batch,
            observers=[],
        )
        run.fit()
        return model.state_dict()

    whole, parts = fit(0), fit(150)
    assert all(torch.allclose(whole[name], parts[name], rtol=1e-6, atol=1e-9) for name in whole)


def test_another_number_of_items_is_refused() -> None:
    with pytest.raises(kt.IncompatibleError, match=r"knows 200 users and 161 items, and the graph has 200 and 160"):
        LightGCN(200, 161)(views()[0].inputs)


@pytest.mark.parametrize("name", ["num_users", "num_items", "size"])
def test_sizes_below_one_are_refused(name: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=f"`{name}` must be >= 1, got 0"):
        LightGCN(**{**DATA.about, name: 0})


@pytest.mark.parametrize("num_layers", [0, 2])
def test_the_queue_keeps_items_and_meets_them_as_they_are_now(num_layers: int) -> None:
    model = encoder(num_layers=num_layers)
    method = clrec(model, queue_size=8)
    made = views()
    _, encoded = method(made)
    method.after_step([view.detach() for view in encoded], 0.1)
    queue = method.sampler
    assert isinstance(queue, kt.IdQueue)
    with torch.no_grad():
        model.items.weight.mul_(-2.0)  # what an optimizer would do
    (pairs,) = queue.pairs(method.encode(made))
    chosen = made[0].inputs.positives
    assert torch.equal(pairs.blocks[1].candidates, model.embed(made[0].inputs.graph)[1][chosen])
    positive, negative = pairs.blocks[1].relation()
    assert not positive.any()
    assert torch.equal(negative, chosen[:, None] != chosen)  # the own item, queued, is ignored


def test_clicks_of_one_item_are_positives() -> None:
    items = torch.tensor([5, 7, 5])
    rows = torch.eye(3)
    (view,) = kt.embedded(rows)
    streams = {"positives": kt.Encoded(rows, items, torch.tensor([10, 11, 12]))}
    (pairs,) = Clicks().pairs([kt.Encoded(view.rows, view.ids, view.copies, streams=streams)])
    positive, negative = pairs.blocks[0].relation()
    assert torch.equal(positive, items[:, None] == items)
    assert torch.equal(negative, items[:, None] != items)


def test_weights_are_checked() -> None:
    with pytest.raises(kt.InvalidValueError, match="`l2` must be >= 0"):
        encoder(l2=-1.0)
    with pytest.raises(kt.InvalidValueError, match="`weight` must be > 0"):
        AllEntities(Ranking(), 0.0)


def test_recall_and_ndcg_of_a_ranking_done_by_hand() -> None:
    known = Graph(2, 5, torch.tensor([0, 1]), torch.tensor([4, 0]))
    held_out = Interactions(known, torch.tensor([0, 0, 0, 1]), torch.tensor([0, 2, 3, 1]))
    user_rows, item_rows = torch.eye(2), torch.tensor([[4.0, 9.0], [3.0, 1.0], [2.0, 2.0], [1.0, 3.0], [9.0, 4.0]])
    users = torch.tensor([0, 1])
    top = recommended(user_rows, item_rows, users, known, k=2)
    assert top.tolist() == [[0, 1], [4, 3]]  # items 4 and 0, known, are left out though they score 9
    assert recall(top, users, held_out) == pytest.approx((1 / 3 + 0 / 1) / 2)
    assert ndcg(top, users, held_out) == pytest.approx((1 / (1 + 1 / math.log2(3)) + 0) / 2)
    top = recommended(user_rows, item_rows, users, known, k=4)
    assert recall(top, users, held_out) == pytest.approx(1.0)
    best = 1 + 1 / math.log2(3) + 1 / 2
    assert ndcg(top, users, held_out) == pytest.approx(((1 + 1 / 2 + 1 / math.log2(5)) / best + 1 / math.log2(5)) / 2)
    with pytest.raises(kt.InvalidValueError, match=r"`k` must be in 1\.\.5"):
        recommended(user_rows, item_rows, users, known, k=6)


def test_training_items_are_never_recommended() -> None:
    model = encoder()
    with torch.no_grad():
        top = recommended(*model.embed(DATA.train.graph), torch.arange(200), DATA.train.graph)
    chosen = {*zip(DATA.train.users.tolist(), DATA.train.items.tolist(), strict=True)}
    assert not any((user, item) in chosen for user, items in enumerate(top.tolist()) for item in items)


def test_training_finds_the_blocks() -> None:
    torch.manual_seed(0)
    model = LightGCN(**DATA.about, size=16)
    before = ranking(model, DATA.train, DATA.test)
    kt.Run(
        lightgcn(model),
        DATA.train,
        augmenter=SGLViews(),
        epochs=8,
        batch_size=128,
        optimizer=kt.AdamW(1e-2, weight_decay=0.0),
        observers=[],
    ).fit()
    assert ranking(model, DATA.train, DATA.test)["recall"] > before["recall"] + 0.2

"""Files, graphs, negatives and views."""
# ruff: noqa: D103
# pyright: reportMissingImports=false

import copy
import gzip
import pickle
from pathlib import Path

import pytest
import torch
from kontrast_recsys.augment import SGLViews
from kontrast_recsys.data import Interactions, load, read
from kontrast_recsys.graph import Graph, Lookup

import kontrast as kt


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with gzip.open(tmp_path / "tiny-train.txt.gz", "wt") as file:
        file.write("0 0 1\n1 1 2\n\n2 3\n")
    (tmp_path / "tiny-valid.txt").write_text("0 2\n1 1\n")
    (tmp_path / "tiny-test.txt").write_text("0 3\n2 0 4\n")
    return tmp_path


def test_files_are_read_valid_joins_train_and_an_interaction_is_there_once(folder: Path) -> None:
    data = load(folder / "tiny")
    assert data.about == {"num_users": 3, "num_items": 5}
    train = list(zip(data.train.users.tolist(), data.train.items.tolist(), strict=True))
    assert train == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 3)]
    assert data.test.items.tolist() == [3, 0, 4]
    assert data.test.graph is data.train.graph


def test_settings_are_chosen_on_valid_without_a_look_at_test(folder: Path) -> None:
    data = load(folder / "tiny", held_out="valid")
    assert len(data.train) == 5
    assert data.test.items.tolist() == [2, 1]


def test_a_bad_line_is_named_with_file_and_line(folder: Path) -> None:
    path = folder / "tiny-test.txt"
    path.write_text("0 3\n1 x4\n")
    with pytest.raises(kt.InvalidValueError, match=r"tiny-test\.txt, line 2: .* got 'x4'"):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(kt.UnknownNameError, match=r"no data set `.*other`.*there is no .*other-train"):
        load(tmp_path / "other")


def test_a_missing_part_is_named(folder: Path) -> None:
    (folder / "tiny-test.txt").unlink()
    with pytest.raises(kt.UnknownNameError, match="no part `test`"):
        load(folder / "tiny")


def test_an_empty_part_is_refused(folder: Path) -> None:
    (folder / "tiny-test.txt").write_text("0\n")
    with pytest.raises(kt.InvalidValueError, match="at least one interaction"):
        load(folder / "tiny")


def test_a_graph_outside_its_numbers_is_refused() -> None:
    with pytest.raises(kt.InvalidValueError, match=r"`items` must lie in 0\.\.1, got 2 to 2"):
        Graph(2, 2, torch.tensor([0]), torch.tensor([2]))


def test_the_adjacency_is_the_symmetric_normalisation() -> None:
    graph = Graph(2, 3, torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]))
    dense = torch.zeros(5, 5)
    for user, item in ((0, 0), (0, 1), (1, 1)):
        dense[user, 2 + item] = dense[2 + item, user] = 1
    degrees = dense.sum(1).clamp(min=1)
    assert torch.allclose(graph.adjacency.to_dense(), dense / (degrees[:, None] * degrees).sqrt())


def test_negatives_are_uniform_over_what_the_user_did_not_choose() -> None:
    graph = Graph(2, 6, torch.tensor([1, 0, 0, 0]), torch.tensor([5, 2, 0, 3]))
    numbers = (torch.arange(3000) + 0.5) / 3000
    for user, items in ((0, [1, 4, 5]), (1, [0, 1, 2, 3, 4])):
        drawn = graph.unchosen(torch.full((3000,), user), numbers)
        values, counts = drawn.unique(return_counts=True)
        assert values.tolist() == items
        assert counts.tolist() == [3000 // len(items)] * len(items)
    assert graph.unchosen(torch.tensor([0]), torch.tensor([0.99999997])).tolist() == [5]


def test_a_user_who_chose_everything_has_no_negative() -> None:
    graph = Graph(1, 2, torch.tensor([0, 0]), torch.tensor([0, 1]))
    with pytest.raises(kt.IncompatibleError, match="user 0 chose all 2"):
        graph.unchosen(torch.tensor([0]), torch.tensor([0.5]))


def test_graphs_are_dropped_once_per_epoch_the_same_in_every_batch() -> None:
    train = load("blocks").train
    augmenter, other = SGLViews(0.3), SGLViews(0.3)
    first = augmenter(train.batch(torch.arange(8)), kt.Draws(0, epoch=1))
    second = augmenter(train.batch(torch.arange(8, 16)), kt.Draws(0, epoch=1, step=1))
    elsewhere = other(train.batch(torch.arange(8, 16)), kt.Draws(0, epoch=1, step=1))
    later = augmenter(train.batch(torch.arange(8)), kt.Draws(0, epoch=2))
    assert first[0].inputs.graph is train.graph
    for view in (1, 2):
        graph = first[view].inputs.graph
        assert graph is second[view].inputs.graph  # not made anew
        assert torch.equal(graph.users, elsewhere[view].inputs.graph.users)  # on another process
        assert not torch.equal(graph.users, later[view].inputs.graph.users)
        assert 0.6 < len(graph.users) / len(train.graph.users) < 0.8
    assert not torch.equal(first[1].inputs.graph.users, first[2].inputs.graph.users)


def test_what_is_computed_of_a_graph_is_not_copied_with_it() -> None:
    graph = load("blocks").train.graph
    graph.adjacency  # noqa: B018 - computes and keeps it
    for other in (copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        assert "adjacency" not in vars(other)
        assert torch.equal(other.adjacency.to_dense(), graph.adjacency.to_dense())


def test_a_graph_goes_to_a_device_once() -> None:
    train = load("blocks").train
    lookup: Lookup = train.batch(torch.arange(3)).inputs
    device = torch.device("meta")
    assert lookup.to(torch.device("cpu")).graph is train.graph
    assert lookup.users.to(device).device == device


def test_a_data_set_without_interactions_is_refused() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(kt.InvalidValueError, match="at least one interaction"):
        Interactions(Graph(1, 1, nothing, nothing), nothing, nothing)


def test_a_ratio_outside_0_to_1_is_refused() -> None:
    with pytest.raises(kt.InvalidValueError, match=r"`ratio` must be in \[0, 1\), got 1"):
        SGLViews(1.0)

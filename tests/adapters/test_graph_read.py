"""Where graphs come from: TU's raw files, sets by name and their download, text files."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch
from torch_geometric.data import Data as Graph
from torch_geometric.datasets import TUDataset

import kontrast as kt
from kontrast.adapters import graph
from kontrast.cli import main

# Three graphs: an edge; a node without one; a path of three, listed out of order and one edge twice.
TOY = {
    "A": "1, 2\n2, 1\n6, 5\n5, 6\n4, 5\n5, 4\n4, 5\n",
    "graph_indicator": "1\n1\n2\n3\n3\n3\n",
    "graph_labels": "1\n-1\n1\n",
}
TAGS = {"node_labels": "2\n5\n3\n3\n5\n2\n"}
ATTRIBUTES = {"node_attributes": "0.5, 1\n1, 2\n0, 3\n2, 4\n1, 5\n3, 1\n"}


def train(*options: str) -> int:
    return main(["train", "graphcl", "--adapter", "graph", "--out", "run", *options])


def raw(folder: Path, name: str = "TOY", **files: str) -> Path:
    """Write raw files where a download leaves them and return the set's folder."""
    (folder / name / "raw").mkdir(parents=True)
    for kind, text in files.items():
        (folder / name / "raw" / f"{name}_{kind}.txt").write_text(text)
    return folder / name


@pytest.mark.parametrize("more", [{}, TAGS, ATTRIBUTES, TAGS | ATTRIBUTES], ids=lambda more: "+".join(more) or "bare")
def test_raw_files_are_read_as_torch_geometric_reads_them(more: dict[str, str], tmp_path: Path) -> None:
    raw(tmp_path, **TOY | more)
    shutil.copytree(tmp_path / "TOY", tmp_path / "other" / "TOY")
    theirs: Any = Batch.from_data_list(list(TUDataset(str(tmp_path / "other"), "TOY")))
    data = graph.load("toy", tmp_path).train
    assert data.num_nodes.tolist() == [2, 1, 3]
    assert data.num_edges.tolist() == [2, 0, 4]
    ours = data.batch(torch.arange(3))
    assert torch.equal(ours.inputs.edge_index, theirs.edge_index)
    if "node_labels" in more:
        assert torch.equal(ours.inputs.x, theirs.x)
    else:
        assert ours.inputs.x.tolist() == [[1.0]] * 6
    assert ours.labels is not None
    assert ours.labels.tolist() == theirs.y.tolist() == [1, 0, 1]


def test_self_loops_and_graphs_without_edges_stay(tmp_path: Path) -> None:
    raw(tmp_path, A="1, 1\n", graph_indicator="1\n2\n2\n3\n")
    data = graph.load("TOY", tmp_path).train
    assert data.num_nodes.tolist() == [1, 2, 1]
    assert data.edge_index.tolist() == [[0], [0]]
    assert data.labels is None
    raw(tmp_path, "BARE", A="", graph_indicator="1\n2\n", graph_labels="3\n4\n")
    assert graph.load("BARE", tmp_path).train.num_edges.tolist() == [0, 0]


def test_several_targets_are_no_classes_and_several_labels_of_a_node_stand_side_by_side(tmp_path: Path) -> None:
    labels = "0, 7\n1, 7\n0, 8\n1, 7\n0, 8\n0, 7\n"
    raw(tmp_path, **TOY | {"graph_labels": "1, 0\n0, 0\n1, 1\n", "node_labels": labels})
    data = graph.load("TOY", tmp_path).train
    assert data.labels is None
    assert data.x[:3].tolist() == [[1, 0, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]]


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"A": "1, 2\n2, 1\n3, 9\n9, 3\n"}, "nodes of one graph, of 1..6, got 3 and 9 in line 3, of graph 1;"),
        ({"A": "1, 2\n2, 1\n0, 6\n"}, "got 0 and 6 in line 3, of graph 2;"),
        ({"A": "1, 2\n2, 3\n"}, "got 2 and 3 in line 2, of graph 0 and 1;"),
        ({"A": "7, 8\n"}, "got 7 and 8 in line 1, of graph none;"),
        ({"A": "1, 2\n2, x\n"}, "TOY_A.txt must hold whole numbers and commas: could not convert string ' x'"),
        ({"A": "1\n2\n"}, "TOY_A.txt must have 2 numbers in a line, got 1"),
        ({"A": "1, 2\n"}, "graph 0 has one that does not"),
        ({"graph_indicator": "1\n1\n2\n1\n2\n3\n"}, "TOY_graph_indicator.txt must say .* not in line 4"),
        ({"graph_indicator": "0\n1\n1\n1\n1\n1\n"}, "TOY_graph_indicator.txt must say .* not in line 1"),
        ({"graph_indicator": ""}, "TOY_graph_indicator.txt must say .* not in line 1"),
        ({"graph_labels": "1\n0\n"}, "TOY_graph_labels.txt must have 3 lines, one per graph, got 2"),
        ({"graph_labels": "1\n0\n0\n1\n"}, "graph 3 must have at least one node"),
        ({"node_labels": "1\n0\n"}, "TOY_node_labels.txt must have 6 lines, one per node, got 2"),
    ],
)
def test_broken_raw_files_are_named(
    broken: dict[str, str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = raw(tmp_path, **TOY | broken)
    with pytest.raises(kt.InvalidValueError, match=sentence):
        graph.load("TOY", tmp_path)
    assert train("--data", str(folder), "--out", str(tmp_path / "run")) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_missing_raw_file_is_named(tmp_path: Path) -> None:
    raw(tmp_path, A=TOY["A"])
    with pytest.raises(kt.InvalidValueError, match=r"TOY_graph_indicator\.txt must stand beside the set's other files"):
        graph.load("TOY", tmp_path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands for TU's server, which has PROTEINS alone; lists what is asked for."""
    asked = []

    def download(self: TUDataset) -> None:
        asked.append(self.name)
        if self.name != "PROTEINS":
            raise ConnectionError("no route to host")
        for kind, text in (TOY | TAGS | ATTRIBUTES).items():
            Path(self.raw_dir, f"PROTEINS_{kind}.txt").write_text(text)

    monkeypatch.setattr(TUDataset, "download", download)
    return asked


def test_a_set_is_the_same_when_it_is_downloaded_and_found_again(
    tmp_path: Path, server: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again = (graph.load("proteins", tmp_path / "new" / "data").train for _ in range(2))
    by_path = graph.load(tmp_path / "new" / "data" / "PROTEINS").train
    assert server == ["PROTEINS"]
    for data in (again, by_path):
        assert torch.equal(first.x, data.x)
        assert torch.equal(first.edge_index, data.edge_index)
    assert first.num_features == 4  # labels from 2 to 5, and no attributes
    monkeypatch.chdir(tmp_path)
    assert train("--data", "sets/PROTEINS", "--epochs", "1", "--drop_last", "false") == 0
    assert server == ["PROTEINS"] * 2
    assert sorted(path.name for path in (tmp_path / "sets").iterdir()) == ["PROTEINS"]


def test_a_download_that_another_process_was_sooner_with_is_no_error(
    tmp_path: Path, server: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    download = TUDataset.download

    def late(self: TUDataset) -> None:
        download(self)
        if not (tmp_path / "PROTEINS").exists():
            raw(tmp_path, "PROTEINS", **TOY)

    monkeypatch.setattr(TUDataset, "download", late)
    assert graph.load("PROTEINS", tmp_path).train.num_features == 1


def test_what_cannot_be_downloaded_is_said_and_leaves_nothing(
    tmp_path: Path, server: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kt.UnknownNameError) as error:
        graph.load("mutag", "data")
    assert str(error.value) == (
        "no graph data set `MUTAG` in data, and its download failed (ConnectionError: no route to host); "
        "unpack https://www.chrsmrrs.com/graphkerneldatasets/MUTAG.zip there"
    )
    with pytest.raises(kt.UnknownNameError, match=r"did you mean `MUTAG`.*no route to host"):
        graph.load("MUTAGG", "data")
    assert server == ["MUTAG", "MUTAGG"]
    assert list((tmp_path / "data").iterdir()) == []
    assert train("--data", "MUTAG") == 2
    assert "downloaded if it is not there, DIR/COLLAB, DIR/DD" in capsys.readouterr().err
    assert train("--data", "data/MUTAGG") == 2  # no look at the network
    assert server == ["MUTAG", "MUTAGG"]
    (tmp_path / "file").touch()
    with pytest.raises(kt.InvalidValueError, match="`root` must be a folder of data sets, got file"):
        graph.load("MUTAG", "file")


def test_the_embedded_set_needs_no_root_and_a_set_of_its_name_there_comes_first(tmp_path: Path) -> None:
    assert len(graph.load("ba2motifs", tmp_path).train) == 1000
    assert len(graph.load("ba2motifs", tmp_path / "none").train) == 1000
    assert not (tmp_path / "none").exists()
    (tmp_path / "ba2motifs.txt").write_text("1\n1 0\n0 0\n")
    assert len(graph.load("ba2motifs", tmp_path).train) == 1


def test_more_graphs_than_a_text_file_says_are_refused(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("1\n1 0\n0 0\n1 1\n0 0\n")
    with pytest.raises(kt.InvalidValueError, match="as many graphs as its first line says, 1, and goes on in line 4"):
        graph.load(tmp_path / "more.txt")
    (tmp_path / "blank.txt").write_text("1\n1 0\n0 0\n\n \n")
    assert len(graph.load(tmp_path / "blank.txt").train) == 1
    (tmp_path / "negative.txt").write_text("1\n-1 0\n")
    with pytest.raises(kt.InvalidValueError, match="graph 0 near line 2 is not: it has -1 nodes"):
        graph.load(tmp_path / "negative.txt")


def test_reading_a_file_leaves_what_torch_may_load(tmp_path: Path) -> None:
    torch.save([made()], tmp_path / "some.pt")
    before = set(torch.serialization.get_safe_globals())
    assert len(graph.load(tmp_path / "some.pt").train) == 1
    assert set(torch.serialization.get_safe_globals()) == before


# --- what is given in memory


def made(**fields: Any) -> Graph:
    return Graph(**{"x": torch.ones(2, 3), "edge_index": torch.tensor([[0, 1], [1, 0]])} | fields)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (made(), "`items` must be several torch_geometric Data, got one Data; put it in a list"),
        (Batch.from_data_list([made()]), r"got one DataBatch; take its to_data_list\(\)"),
        (5, "`items` must be a list of torch_geometric Data, got 5"),
        ([made(), None], "graph 1 must be a torch_geometric Data, got NoneType"),
        ([made(), made(x=np.ones((2, 3)))], "`x` of graph 1 must be a dense tensor of real numbers, got ndarray"),
        ([made(), made(x=torch.ones(2, 3) * 1j)], "`x` of graph 1 must be .* got torch.complex64"),
        (
            [made(), made(x=torch.ones(2, 3).to_sparse())],
            "`x` of graph 1 must be .* got torch.float32 torch.sparse_coo",
        ),
        ([made(), made(edge_index=np.array([[0, 1], [1, 0]]))], "`edge_index` of graph 1 must be a tensor .* ndarray"),
        ([made(), made(edge_index=torch.tensor([[0, 2], [2, 0]]))], "0..1, its nodes, got 2; nodes count from 0"),
        (
            [made(), made(edge_index=torch.tensor([[0], [1]]))],
            "graph 1 .*ToUndirected; graph.graphs alone takes directed",
        ),
        ([made(), made(x=torch.ones(2, 4))], "got 4; bring all graphs to one width"),
        ([made(), made(x=torch.full((2, 3), math.nan))], "at node 0 of graph 1; fill them in"),
        ([made(y=1), made()], "graph 1 must have a label `y` as others have, got None; give the classes as `labels`"),
        ([made(y=torch.tensor([1.0])), made(y=torch.tensor([math.nan]))], "graph 1 must have a label"),
        ([made(y=1), made(y="benign")], "`y` of graph 1 must be a number or a tensor, got 'benign'"),
    ],
)
def test_what_is_no_list_of_graphs_is_named(given: Any, sentence: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=sentence):
        graph.graphs(given)


def test_labels_that_are_given_are_held_to_their_rule() -> None:
    for labels, found in (([0, 1], "list"), (torch.tensor([0, 1], dtype=torch.int32), r"torch.int32 \[2\]")):
        given: Any = labels
        with pytest.raises(kt.InvalidValueError, match=rf"`labels` must be int64 \[2\], one per graph, got {found}"):
            graph.graphs([made(), made()], given)
    nodes: Any = [0, 1]
    with pytest.raises(kt.InvalidValueError, match=r"`labels` must be int64 \[2\], one per node, got list"):
        graph.EgoNetworks(made(), labels=nodes)


@pytest.mark.parametrize(
    ("ys", "labels"),
    [
        ([torch.tensor([1.0]), torch.tensor(0.0)], [1, 0]),
        ([np.int64(3), True], [3, 1]),
        ([[2], torch.tensor([[1]])], [2, 1]),
        ([0.5, 1.0], None),  # targets of a regression
        ([torch.tensor([1, 0]), torch.tensor([1])], None),  # labels of nodes
        ([None, None], None),
    ],
)
def test_whole_numbers_are_labels_and_other_targets_are_not(ys: list[Any], labels: list[int] | None) -> None:
    found = graph.graphs(made(y=y) for y in ys).labels  # from a generator
    assert (None if found is None else found.tolist()) == labels

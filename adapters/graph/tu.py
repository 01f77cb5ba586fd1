"""The raw files of a TU data set: `NAME_A.txt`, a line per edge, and beside it files of a line per node or per graph.

Shapes: G graphs, N nodes and E directed edges of all of them together, F features of a node.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.data import Data as Graph

import kontrast as kt

__all__ = ["read_tu"]

AGAIN = "correct it, or download the set again"


def read_tu(path: Path) -> list[Graph]:
    """Return the graphs of `NAME_A.txt` and the files beside it.

    Features are the labels of nodes, one-hot, with a column for each number from the smallest to the largest; where
    there are none, graphs have no `x`. Attributes of nodes, which are continuous, and all of edges are left out, as by
    default in torch_geometric's TUDataset, which GraphCL's code reads. As there, an edge listed twice counts once;
    unlike there, self-loops stay, and so do the last graphs if they have no edge.

    Args:
        path: of `NAME_A.txt`.

    Raises:
        InvalidValueError: if a file is missing or broken, or an edge leaves its graph; says in which line.
    """
    beside = path.name.removesuffix("A.txt")
    owner = _owner(path.with_name(f"{beside}graph_indicator.txt"))
    graphs = int(owner[-1]) + 1
    y = None
    if (file := path.with_name(f"{beside}graph_labels.txt")).is_file():
        labels = _table(file)
        if len(labels) < graphs:
            raise kt.InvalidValueError(
                f"{file.name} must have {graphs} lines, one per graph, got {len(labels)}; {AGAIN}"
            )
        graphs = len(labels)
        if labels.shape[1] == 1:  # several targets are no classes
            y = np.unique(labels, return_inverse=True)[1].reshape(-1).tolist()
    num_nodes = np.bincount(owner, minlength=graphs)
    edges = _edges(path, owner)
    num_edges = np.bincount(owner[edges[0]], minlength=graphs).tolist()
    own_edges = torch.from_numpy(edges - (num_nodes.cumsum() - num_nodes)[owner[edges[0]]]).split(num_edges, 1)
    x = _one_hot(path.with_name(f"{beside}node_labels.txt"), len(owner)).split(num_nodes.tolist())
    return [
        Graph(
            x=x[graph] if x[graph].shape[1] else None,
            edge_index=own_edges[graph],
            y=None if y is None else y[graph],
            num_nodes=int(num_nodes[graph]),
        )
        for graph in range(graphs)
    ]


def _owner(path: Path) -> NDArray[np.int64]:
    """Return the graph of each node, counted from 0, int64 [N]."""
    owner = _table(path)[:, 0] - 1
    wrong = np.flatnonzero(np.diff(owner, prepend=0) < 0)
    if len(wrong) or len(owner) == 0:
        line = int(wrong[0]) + 1 if len(wrong) else 1
        raise kt.InvalidValueError(
            f"{path.name} must say the graph of each node, from 1 on and in order, and does not in line {line}; {AGAIN}"
        )
    return owner


def _edges(path: Path, owner: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the edges in order, each once, int64 [2, E]; nodes are counted from 0."""
    edges, nodes = _table(path, columns=2) - 1, len(owner)
    inside = (edges >= 0) & (edges < nodes)
    graph = np.where(inside, owner[edges.clip(0, nodes - 1)], -1)
    wrong = np.flatnonzero(~inside.all(1) | (graph[:, 0] != graph[:, 1]))
    if len(wrong):
        line = int(wrong[0])
        start, end = edges[line] + 1
        found = " and ".join(str(number) for number in sorted({*graph[line].tolist()} - {-1})) or "none"
        raise kt.InvalidValueError(
            f"{path.name} must join nodes of one graph, of 1..{nodes}, got {start} and {end} in line {line + 1}, "
            f"of graph {found}; {AGAIN}"
        )
    key = torch.from_numpy(edges[:, 0] * nodes + edges[:, 1]).unique().numpy()
    return np.stack((key // nodes, key % nodes))


def _one_hot(path: Path, nodes: int) -> Tensor:
    """Return the labels of nodes, one-hot, one kind of them after the other, [N, F]; F is 0 where there are none."""
    if not path.is_file():
        return torch.empty(nodes, 0)
    labels = _table(path)
    if len(labels) != nodes:
        raise kt.InvalidValueError(f"{path.name} must have {nodes} lines, one per node, got {len(labels)}; {AGAIN}")
    return torch.cat([F.one_hot(kind) for kind in torch.from_numpy(labels - labels.min(0)).unbind(1)], 1).float()


def _table(path: Path, columns: int | None = None) -> NDArray[np.int64]:
    """Return a file of whole numbers, in each line as many, with commas between them, int64 [lines, columns]."""
    try:
        with path.open(encoding="utf-8") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # numpy's, of a file without lines: graphs may have no edges
            found = np.loadtxt(file, dtype=np.int64, delimiter=",", comments=None, ndmin=2)
    except OSError as error:
        raise kt.InvalidValueError(
            f"{path} must stand beside the set's other files: {error.strerror}; {AGAIN}"
        ) from error
    except (ValueError, OverflowError) as error:
        raise kt.InvalidValueError(f"{path.name} must hold whole numbers and commas: {error}; {AGAIN}") from error
    if columns is not None and found.shape[1] != columns:
        if found.size:
            raise kt.InvalidValueError(
                f"{path.name} must have {columns} numbers in a line, got {found.shape[1]}; {AGAIN}"
            )
        found = found.reshape(0, columns)
    return found

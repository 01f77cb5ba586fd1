"""Where graphs come from: the embedded set, powerful-gnns text files, TU data sets, files of torch_geometric graphs."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch_geometric.data import Data as Graph
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage
from torch_geometric.datasets import ExplainerDataset, TUDataset
from torch_geometric.datasets.graph_generator import BAGraph
from torch_geometric.datasets.motif_generator import CycleMotif, HouseMotif

import kontrast as kt
from kontrast.adapters.graph.data import GraphData, graphs
from kontrast.adapters.graph.tu import read_tu

__all__ = ["load"]

_EMBEDDED = "ba2motifs"
_TU = ("COLLAB", "DD", "ENZYMES", "IMDB-BINARY", "IMDB-MULTI", "MUTAG", "NCI1", "PROTEINS", "REDDIT-BINARY")


def load(source: str | Path, root: str | Path | None = None) -> kt.Splits[GraphData]:
    """Return a data set by name or from a file.

    Args:
        source: `"ba2motifs"` (1,000 generated graphs, a house or a five-cycle on a random tree of 20 nodes); a text
            file of the powerful-gnns release; a `.pt` file that holds a list of torch_geometric `Data`; a folder that
            holds such a file, or TU's raw `NAME_A.txt`; or, with `root`, the name of a data set there. `"DIR/MUTAG"` is
            that name with that root, for the sets that GraphCL is known by.
        root: a folder of data sets, found by name whatever case and hyphens (`IMDB-BINARY` finds `IMDBBINARY`). A set
            of TU's collection that is not there is downloaded, and the folder made if need be.

    Of TU's raw files, downloaded or not, the features are the labels of nodes; their continuous attributes are left
    out, as by default in torch_geometric's TUDataset, which GraphCL's code reads.

    Raises:
        UnknownNameError: if it is none of these, or cannot be downloaded.
        InvalidValueError: if a file holds something else, or a graph is broken; the sentence names it.
    """
    path, name = Path(source), str(source)
    found = None if root is not None or name == _EMBEDDED else _find(path)
    if root is None and found is None and len(path.parts) > 1 and _official(path.name) in _TU:
        name, root = path.name, path.parent
    if root is not None:
        found = _named(name, Path(root))
        if found is None and name != _EMBEDDED:
            found = _downloaded(_official(name), Path(root))
    if found is not None:
        return _splits(_read(found))
    if name == _EMBEDDED:
        return _splits(graphs(_motifs()))
    hint = f"; and in a folder DIR, downloaded if it is not there, DIR/{', DIR/'.join(_TU)}"
    raise kt.UnknownNameError("graph data set, file or folder", name, (_EMBEDDED,), hint=hint)


def _splits(data: GraphData) -> kt.Splits[GraphData]:
    return kt.Splits(data, about={"in_channels": data.num_features})


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _official(name: str) -> str:
    """Return TU's name of a set, whose server looks at case and hyphens."""
    return next((known for known in _TU if _plain(known) == _plain(name)), name)


def _named(name: str, root: Path) -> Path | None:
    """Return the file of a data set in a folder of data sets."""
    if not root.is_dir():
        if root.exists():
            raise kt.InvalidValueError(f"`root` must be a folder of data sets, got {root}, which is none")
        return None
    for entry in sorted(root.iterdir()):
        if _plain(entry.name.removesuffix(".txt").removesuffix(".pt")) == _plain(name):
            return _find(entry)
    return _find(root) if _plain(root.name) == _plain(name) else None


def _find(path: Path) -> Path | None:
    """Return the file to read: itself, or what lies in the folder under its name."""
    if path.is_file():
        return path
    if not path.is_dir():
        return None
    for folder in (path, path / "raw"):
        for pattern in (f"{path.name}.txt", "*_A.txt", "*.pt", "*.txt"):
            if files := sorted(folder.glob(pattern)):
                return files[0]
    return None


def _downloaded(name: str, root: Path) -> Path:
    """Download a set into `root/NAME/raw` and return the file to read: what any later call finds and reads, too."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root) as folder:  # so that a download that fails, or another process's, is not seen
            TUDataset(folder, name)
            (root / name).mkdir(exist_ok=True)
            try:
                Path(folder, name, "raw").rename(root / name / "raw")
            except OSError:
                if _find(root / name) is None:  # else another process was sooner
                    raise
    except Exception as error:  # no network, no such name, a full disk
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        if name not in _TU:
            raise kt.UnknownNameError(
                f"graph data set in {root}, nor to download,", name, _TU, hint=f" ({why})"
            ) from error
        raise kt.UnknownNameError(
            f"no graph data set `{name}` in {root}, and its download failed ({why}); "
            f"unpack {TUDataset.url}/{name}.zip there"
        ) from error
    found = _find(root / name)
    assert found is not None
    return found


def _read(path: Path) -> GraphData:
    if path.name.endswith("_A.txt"):
        return graphs(read_tu(path))
    if path.suffix == ".pt":
        # Leaving the block takes from the list all that it was given, and torch_geometric needs its own.
        known = torch.serialization.get_safe_globals()
        new: list[Any] = [kind for kind in (Graph, DataEdgeAttr, DataTensorAttr, GlobalStorage) if kind not in known]
        try:
            with torch.serialization.safe_globals(new):
                items = torch.load(path, weights_only=True)
        except Exception as error:  # what refuses a file depends on what is in it
            raise kt.InvalidValueError(
                f"{path.name} must hold graphs saved by torch.save, and torch does not load it as mere data: "
                f"{str(error).splitlines()[0]}"
            ) from error
        if not isinstance(items, (list, tuple)) or not all(isinstance(item, Graph) for item in items):
            raise kt.InvalidValueError(
                f"{path.name} must hold a list of torch_geometric Data, got {type(items).__name__}"
            )
        return graphs(items)
    return _text(path)


def _text(path: Path) -> GraphData:
    """Read a powerful-gnns text file: per graph `nodes label`, then per node `tag degree neighbours`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    at, items, tags = 1, [], []
    try:
        for _ in range(int(lines[0])):
            nodes, label = map(int, lines[at].split())
            if nodes < 0:
                raise ValueError(f"it has {nodes} nodes")
            rows = [list(map(int, line.split())) for line in lines[at + 1 : at + 1 + nodes]]
            if len(rows) < nodes:
                raise IndexError("it ends too soon")
            for node, row in enumerate(rows):
                if len(row) < 2 + row[1]:
                    raise ValueError(f"node {node} names {len(row) - 2} of its {row[1]} neighbours")
            at += 1 + nodes
            tags.append(torch.tensor([row[0] for row in rows], dtype=torch.int64))
            pairs = [(number, other) for number, row in enumerate(rows) for other in row[2 : 2 + row[1]]]
            edge_index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
            items.append(Graph(edge_index=edge_index, y=torch.tensor(label), num_nodes=nodes))
    except (ValueError, IndexError) as error:
        raise kt.InvalidValueError(
            f"{path.name} must be a powerful-gnns text file, and graph {len(items)} near line {at + 1} is not: {error}"
        ) from error
    if any(line.strip() for line in lines[at:]):
        raise kt.InvalidValueError(
            f"{path.name} must hold as many graphs as its first line says, {lines[0].strip()}, and goes on in line "
            f"{at + 1}; correct the number"
        )
    known, numbers = torch.unique(torch.cat(tags), return_inverse=True) if tags else (torch.empty(0), torch.empty(0))
    if len(known) > 1:  # one tag for all says nothing: such nodes get the constant 1
        sizes = [len(part) for part in tags]
        for item, own in zip(items, F.one_hot(numbers, len(known)).float().split(sizes), strict=True):
            item.x = own
    return graphs(items)


def _motifs() -> list[Graph]:
    """Return BA-2motifs (Luo et al. 2020, arXiv:2011.04573), the same every time."""
    with _seeded(0):
        return [
            Graph(edge_index=item.edge_index, num_nodes=item.num_nodes, y=torch.tensor(label))
            for label, motif in enumerate((HouseMotif(), CycleMotif(5)))
            for item in ExplainerDataset(BAGraph(20, 1), motif, num_motifs=1, num_graphs=500)
        ]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators that torch_geometric draws from, and put them back as they were."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])

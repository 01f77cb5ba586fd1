"""Interactions as a data set: LightGCN's text files, a small generated set, and the adapter that loads either.

Shapes: U users, I items, E edges, N samples, B samples of a batch.
"""

import gzip
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

import kontrast as kt
from kontrast_recsys.graph import Graph, Lookup

__all__ = ["Interactions", "RecsysAdapter", "blocks", "load", "read"]

PARTS = ("train", "valid", "test")


class Interactions:
    """One sample per interaction: a user and an item that it chose. A sample's group is its user.

    Args:
        graph: what may be known when embeddings are made: the training interactions, also of a test part.
        users: int64 [N].
        items: int64 [N].

    Raises:
        InvalidValueError: if there is no interaction.
    """

    def __init__(self, graph: Graph, users: Tensor, items: Tensor) -> None:
        if not len(users):
            raise kt.InvalidValueError("a data set must hold at least one interaction, got none")
        self.graph = graph
        self.users = users
        self.items = items

    def __len__(self) -> int:
        return len(self.users)

    @property
    def groups(self) -> Tensor:
        """The user of every sample, int64 [N]: what a sampler that arranges an epoch may go by."""
        return self.users

    def batch(self, indices: Tensor) -> kt.Batch:
        """Return the interactions at `indices`; the negatives are the augmenter's to draw."""
        users, items = self.users[indices], self.items[indices]
        return kt.Batch(Lookup(self.graph, users, items), ids=indices, groups=users)


def read(path: Path) -> Tensor:
    """Return the interactions of a text file, int64 [2, N]: users and items, in order, each once.

    Args:
        path: lines of a user's number and those of its items, with blanks between them; gzipped where it ends in .gz.

    Raises:
        InvalidValueError: if a line is something else; names file and line.
    """
    pairs: dict[tuple[int, int], None] = {}
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        for number, line in enumerate(lines, start=1):
            words = line.split()
            if not all(word.isascii() and word.isdigit() for word in words):
                wrong = next(word for word in words if not (word.isascii() and word.isdigit()))
                raise kt.InvalidValueError(
                    f"{path}, line {number}: a line must be a user's number and those of its items, integers >= 0, "
                    f"got {wrong!r}"
                )
            user, *items = map(int, words) if words else [-1]
            pairs.update(((user, item), None) for item in items)
    return torch.tensor(list(pairs), dtype=torch.int64).reshape(-1, 2).T.contiguous()


def load(source: str | Path, held_out: Literal["test", "valid"] = "test") -> kt.Splits[Interactions]:
    """Return a data set as training and held-out interactions.

    Args:
        source: `"blocks"`, the generated set; or where files lie: `data/lastfm` for `data/lastfm-train.txt.gz` and so
            on, or a folder with `train.txt.gz`. Names end in .txt or .txt.gz; the part `valid` may be missing.
        held_out: what is kept apart. With `"test"` it is trained on train and valid, as LightGCN and SGL do; with
            `"valid"`, for choosing settings, on train alone.

    Raises:
        UnknownNameError: if there are no such files.
        InvalidValueError: if a line cannot be read, or a part is empty.
    """
    if held_out not in ("test", "valid"):
        raise kt.InvalidValueError(f"`held_out` must be test or valid, got {held_out!r}")
    parts = blocks() if str(source) == "blocks" else _files(Path(source))
    known = [part for part in PARTS if part in parts and (part != "test" or held_out == "test")]
    if held_out not in known or "train" not in known:
        raise kt.UnknownNameError("part", held_out if "train" in known else "train", known)
    every = torch.cat(list(parts.values()), dim=1)
    num_users, num_items = (int(row.max()) + 1 if len(row) else 0 for row in every)
    chosen = torch.cat([parts[part] for part in known if part != held_out], dim=1)
    users, items = torch.unique(chosen, dim=1)  # train and valid may share an interaction
    graph = Graph(num_users, num_items, users, items)
    about = {"num_users": num_users, "num_items": num_items}
    return kt.Splits(Interactions(graph, users, items), Interactions(graph, *parts[held_out]), about)


def blocks(
    num_users: int = 200, num_items: int = 160, num_blocks: int = 8, chosen: int = 10, seed: int = 0
) -> dict[str, Tensor]:
    """Return generated interactions by part, int64 [2, N]: users and items fall into blocks, and mostly meet their own.

    Popularity within a block follows Zipf's law, as in logs of real choices: its second item is chosen half as often as
    the first, as far as a user, who chooses no item twice, allows.

    Args:
        num_users: user u is in block u modulo `num_blocks`.
        num_items: likewise.
        num_blocks: how many blocks.
        chosen: items of each user, of which one is kept for validation and two for testing; drawn with odds of
            four to one for the user's own block.
        seed: of all choices.
    """
    generator = torch.Generator().manual_seed(seed)
    own = torch.arange(num_users)[:, None] % num_blocks == torch.arange(num_items) % num_blocks
    popularity = 1 / (1 + torch.arange(num_items) // num_blocks)
    odds = torch.where(own, 0.8 * num_blocks, 0.2 * num_blocks / (num_blocks - 1)) * popularity
    items = torch.multinomial(odds, chosen, generator=generator)
    users = torch.arange(num_users)[:, None].expand(-1, chosen)
    pairs = torch.stack([users, items])
    cut = {"train": slice(None, -3), "valid": slice(-3, -2), "test": slice(-2, None)}
    return {part: pairs[:, :, where].flatten(1) for part, where in cut.items()}


class RecsysAdapter(kt.Adapter):
    """Recommendation as the command line sees it."""

    default_data = "blocks"
    default_encoder = "lightgcn"
    default_augmenter = "sgl-views"
    default_probe = "ranking"

    def load(self, source: str) -> kt.Splits[Interactions]:
        """Return `kontrast_recsys.data.load(source)`."""
        return load(source)


def _files(source: Path) -> dict[str, Tensor]:
    """Return the parts that there are files of."""
    parts: dict[str, Tensor] = {}
    for part in PARTS:
        stem = str(source / part) if source.is_dir() else f"{source}-{part}"
        found = [path for path in (Path(f"{stem}.txt"), Path(f"{stem}.txt.gz")) if path.is_file()]
        if found:
            parts[part] = read(found[0])
    if not parts:
        raise kt.UnknownNameError("data set", str(source), ["blocks"], hint=f"; there is no {source}-train.txt[.gz]")
    return parts

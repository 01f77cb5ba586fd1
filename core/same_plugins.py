"""Processes of one run must have the same plugins: a name would mean one thing here and another there."""

import hashlib
from socket import gethostname

import torch.distributed as dist

from .distributed import world_size
from .errors import IncompatibleError
from .registry import Plugin, registry

__all__ = ["check_same_plugins"]

Table = dict[str, str]


def check_same_plugins() -> None:
    """Compare a hash of the plugin table over all processes, and where it differs the tables.

    Every process must call it; all of them raise, or none.

    Raises:
        IncompatibleError: names the first process that differs from the first one, and the first plugin that does.
    """
    if world_size() == 1:
        return
    table = _table(registry().plugins)
    digests: list[str | None] = [None] * world_size()
    dist.all_gather_object(digests, hashlib.sha256(repr(sorted(table.items())).encode()).hexdigest())
    if len(set(digests)) == 1:
        return
    tables: list[tuple[str, Table] | None] = [None] * world_size()
    dist.all_gather_object(tables, (gethostname(), table))
    known = [(number, *found) for number, found in enumerate(tables) if found is not None]
    _, _, first = known[0]
    rank, host, other = next(entry for entry in known if entry[2] != first)
    name = next(name for name in sorted({*first, *other}) if first.get(name) != other.get(name))
    raise IncompatibleError(
        f"all processes of a run must have the same plugins, and rank {rank} (on {host}) has "
        f"{other.get(name, f'no {name}')}, rank 0 (on {known[0][1]}) {first.get(name, f'no {name}')}; install the same "
        "versions everywhere, and set KONTRAST_PLUGINS and KONTRAST_DISABLE_PLUGINS alike"
    )


def _table(plugins: tuple[Plugin, ...]) -> Table:
    """Return what must be equal, by plugin; of a failure that is its stage, for its cause may name local paths."""
    table: Table = {}
    for plugin in plugins:
        name = f"plugin `{plugin.name}` of {plugin.distribution}"
        state = f"failed at {plugin.stage}" if plugin.error is not None else plugin.state
        provides = ", ".join(sorted(f"{record.kind} {record.name}" for record in plugin.records))
        called = f"{name} {plugin.version}".strip()  # what a process registered itself has no version
        table[name] = f"{called} ({state}{f': {provides}' if provides else ''})"
    return table

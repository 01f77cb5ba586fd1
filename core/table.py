"""Tables on standard output. Light: no torch."""

import sys

__all__ = ["print_table"]


def print_table(headings: list[str], rows: list[list[str]]) -> None:
    """Print rows under headings, aligned; piped, one line per row however long, without the padding behind.

    Args:
        headings: of the columns; those with short words are never broken over lines.
        rows: one text per column each.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading in _SHORT)
    for row in rows:
        table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else 100_000, highlight=False, markup=False, emoji=False)
    with console.capture() as capture:
        console.print(table)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))


_SHORT = ("default", "import", "kind", "name", "option", "parameter", "plugin", "probe", "provided by", "state")

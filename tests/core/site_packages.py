"""Distributions as pip leaves them: a module, metadata and entry points in a folder of their own."""

import os
import subprocess
from pathlib import Path

from fresh import python

__all__ = ["install", "run"]


def install(
    site: Path, name: str, source: str, *, version: str = "1.2", requires: str = "", metadata: bool = True
) -> None:
    """Write a distribution with one entry point of its own name, whose module holds `source`."""
    module = name.replace("-", "_")
    site.mkdir(exist_ok=True)
    (site / f"{module}.py").write_text(source)
    info = site / f"{module}-{version}.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(f"[kontrast]\n{name} = {module}\n")
    if metadata:
        needs = f"Requires-Dist: {requires}\n" if requires else ""
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")


def run(
    *arguments: str, sites: list[Path], environment: dict[str, str] | None = None, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python where these folders are on the path."""
    path = os.pathsep.join(map(str, sites))
    return python(*arguments, folder=folder, environment={"PYTHONPATH": path, "COLUMNS": "200", **(environment or {})})

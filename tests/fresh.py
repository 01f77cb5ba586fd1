"""Python processes that have torch from the start: a command's output and status without the seconds of that import.

Each is forked from the server that the kit's processes come from (see conftest.py). What is claimed of imports needs a
really new process: `subprocess.run`.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["python"]

_CONTEXT = multiprocessing.get_context("forkserver")


def python(
    *arguments: str, folder: Path | None = None, environment: Mapping[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Return what came of `python -P ARGUMENTS`: `-m MODULE ...`, `-c CODE ...` or `SCRIPT ...`.

    Args:
        arguments: behind `python -P`.
        folder: the working directory; by default ours.
        environment: what differs from ours.
        timeout: in seconds.
    """
    full = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    with TemporaryDirectory() as said:
        files = [Path(said) / name for name in ("out", "err")]
        process = _CONTEXT.Process(target=_main, args=(arguments, folder or Path.cwd(), full, files))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            raise TimeoutError(f"{arguments} took longer than {timeout} s: {files[1].read_text()}")
        out, err = (file.read_text(encoding="utf-8") for file in files)
    assert process.exitcode is not None
    return subprocess.CompletedProcess(arguments, process.exitcode, out, err)


def _main(arguments: tuple[str, ...], folder: Path, environment: dict[str, str], files: list[Path]) -> None:
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    first, *others = arguments
    if first == "-m":
        sys.argv = others
        runpy.run_module(others[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *others[1:]]
        exec(compile(others[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [first, *others]
        runpy.run_path(os.path.abspath(first), run_name="__main__")  # processes that it starts look from where we began

import ast
import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kontrast

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"core": "kontrast", "plugins": "kontrast.plugins", "adapters": "kontrast.adapters"}
AGAIN = "run `pip install -e .` again, and list a new sub-package in pyproject.toml's [tool.setuptools] packages"


def _name(file: Path) -> str:
    folder, *parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join([FOLDERS[folder], *(part for part in parts if part != "__init__")])


FILES = {_name(file): file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))}


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_the_module_it_should_be(name: str) -> None:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # of the package it lies in
        spec = None
    assert spec is not None, f"{name} is not installed: {AGAIN}"
    assert spec.origin is not None, f"{name} has no __init__.py"
    assert Path(spec.origin).read_bytes() == FILES[name].read_bytes(), f"{spec.origin} is out of date: {AGAIN}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_is_not_importable_by_its_own_name(folder: str) -> None:
    done = _python("-c", f"import {folder}")
    assert done.returncode == 1
    assert f"ImportError: write `import {FOLDERS[folder]}`, not `import {folder}`" in done.stderr


def test_the_package_and_a_listing_import_no_torch() -> None:
    code = (
        "import sys, kontrast\n"
        "from kontrast.registry import KINDS\n"
        "assert all(kontrast.get_records(kind) for kind in KINDS.values())\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = _python("-W", "error", "-c", code)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert {"kontrast", "pluggy"} <= loaded
    assert not {"torch", "numpy", "jsonargparse", "rich", "sklearn"} & loaded


def _offered() -> list[str]:
    """The names that core/__init__.py imports for its users, in both of its parts."""
    tree = ast.parse(FILES["kontrast"].read_text())
    checked = [node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)]
    imports = [node for node in tree.body + checked[0].body if isinstance(node, ast.ImportFrom) and node.level]
    return [alias.asname or alias.name for node in imports for alias in node.names]


def test_all_lists_the_public_names_once() -> None:
    assert set(kontrast.__all__) == set(_offered())
    assert len(kontrast.__all__) == len(set(kontrast.__all__))
    assert not [name for name in kontrast.__all__ if name.startswith("_")]


@pytest.mark.parametrize("name", kontrast.__all__)
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(kontrast, name)
    assert getattr(value, "__name__", name) in (name, f"kontrast.{name}")


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'kontrast' has no attribute 'simclr'"):
        _ = getattr(kontrast, "simclr")  # noqa: B009  # a type checker refuses the plain spelling, as it should


def _imported(name: str) -> Iterator[str]:
    """The absolute names that a file imports, wherever in it."""
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            home = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{home}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (
                importlib.util.resolve_name(str(argument.value), package)
                for argument in node.args[:1]
                if isinstance(argument, ast.Constant)
            )


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("core", ("kontrast.plugins", "kontrast.adapters")),
        ("plugins", ("kontrast.adapters",)),
        ("adapters", ("kontrast.plugins",)),
    ],
)
def test_no_folder_imports_one_above_it(folder: str, forbidden: tuple[str, ...]) -> None:
    own = [name for name, file in FILES.items() if file.relative_to(ROOT).parts[0] == folder]
    assert own
    wrong = [
        f"{name} imports {other}"
        for name in own
        for other in _imported(name)
        if any(f"{other}.".startswith(f"{part}.") for part in forbidden)
    ]
    assert not wrong


def _undocumented(parent: ast.Module | ast.ClassDef, path: str) -> Iterator[str]:
    for node in parent.body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) or node.name.startswith("_"):
            continue
        if any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list):
            continue
        if not ast.get_docstring(node):
            yield f"{path}.{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from _undocumented(node, f"{path}.{node.name}")


@pytest.mark.parametrize("name", FILES)
def test_what_is_public_is_documented(name: str) -> None:
    tree = ast.parse(FILES[name].read_text())
    assert ast.get_docstring(tree), f"{name} has no docstring"
    assert not list(_undocumented(tree, name))

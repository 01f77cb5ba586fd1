"""The site builds without a warning, offline, and has a page or a place for everything there is."""

import html
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs_page import DOCS

import kontrast as kt
import kontrast.testing
from kontrast.records import RecipeRecord, Record
from kontrast.registry import KINDS

pytest.importorskip("mkdocs", reason="the site is built by the extra `docs`")
pytestmark = pytest.mark.xdist_group("site")  # built once

PUBLIC = {
    **{f"kontrast.{name}": getattr(kt, name) for name in kt.__all__},
    **{f"kontrast.testing.{name}": getattr(kontrast.testing, name) for name in kontrast.testing.__all__},
    **{f"kontrast.evaluate.{name}": getattr(kt.evaluate, name) for name in kt.evaluate.__all__},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = (sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder))
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=DOCS.parent, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def reference(site: Path) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted((site / "reference").glob("*.html")))


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: str(kind.kind))
def test_everything_registered_has_a_page(kind: type[Record], site: Path) -> None:
    folder = site / "registered" / f"{kind.kind}s"
    records = kt.get_records(kind)
    assert records
    index = (folder / "index.html").read_text(encoding="utf-8")
    for name, record in records.items():
        page = (folder / f"{name}.html").read_text(encoding="utf-8")
        assert html.escape(record.summary, quote=False) in page
        assert f'href="{name}.html"' in index
        if record.paper.startswith("arXiv:"):
            assert f'href="https://arxiv.org/abs/{record.paper.removeprefix("arXiv:")}"' in page
        made_by = "highlight" if isinstance(record, RecipeRecord) else "doc doc-contents"
        assert f'class="{made_by}' in page, f"{record.factory} was not found"


def test_every_public_name_is_in_the_reference_as_it_is_declared(reference: str) -> None:
    for name, value in PUBLIC.items():
        assert f'id="{name}"' in reference, f"add `::: {name}` to a page in docs/reference/"
        maker = (
            next((c for c in inspect.getmro(value) if "__init__" in vars(c)), value)
            if inspect.isclass(value)
            else value
        )
        if (
            not callable(value) or not maker.__module__.startswith("kontrast") or value is kt.Data
        ):  # torch's; a protocol
            continue
        section = reference.partition(f'id="{name}"')[2].partition('class="doc doc-contents')[0]
        shown = re.findall(r"\w+", html.unescape(re.sub(r"<[^>]+>", "", section)))
        missing = [parameter for parameter in inspect.signature(value).parameters if parameter not in shown]
        assert not missing, f"{name} is shown without {missing}"


def test_a_reader_fetches_nothing(site: Path) -> None:
    for page in sorted(site.rglob("*.html")):
        text = page.read_text(encoding="utf-8")
        found = re.findall(r'(?:src|href)="(https?://[^"]+\.(?:js|css|woff2?|png|svg)[^"]*)"', text)
        assert not found, f"{page.relative_to(site)} fetches {found}"
        assert "fonts.g" not in text

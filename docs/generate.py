"""Pages made at build time, by mkdocs: one for every registered name, and what README and RESULTS say."""

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from kontrast.records import MethodRecord, RecipeRecord, Record
from kontrast.registry import KINDS, registry

__all__ = ["on_config", "on_files", "on_page_content", "pages"]

ROOT = Path(__file__).parent.parent

# What each kind is, and how one is asked for on the command line.
ABOUT = {
    "method": ("A composition of towers, a sampler and an objective.", "kontrast train {name}"),
    "objective": ("What a comparison is worth.", "--objective {name}"),
    "sampler": ("Who is compared with whom.", "--sampler {name}"),
    "augmenter": ("What makes the views of a batch.", "--augmenter {name}"),
    "encoder": ("What embeds a view.", "--encoder {name}"),
    "adapter": ("A domain: how its data are loaded.", "--adapter {name}"),
    "observer": ("What watches a run.", "--observers {name}"),
    "probe": ("What judges an encoder.", "kontrast evaluate RUN --probe {name}"),
    "recipe": ("A setting of `kontrast train` under a name.", "kontrast train --recipe {name}"),
    "optimizer": ("What moves the weights.", "--optimizer {name}"),
}


def pages() -> dict[str, str]:
    """Return the generated pages: path below docs/ -> Markdown, sorted by kind and name."""
    made: dict[str, str] = {}
    for kind in KINDS.values():
        records = registry().records(kind)
        made[f"registered/{kind.kind}s/index.md"] = _index(kind.kind, records)
        made |= {f"registered/{kind.kind}s/{name}.md": _page(record) for name, record in records.items()}
    return made | _front()


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give the generated pages a place in the navigation, before the reference."""
    kinds = [{f"{kind.kind.capitalize()}s": _nav(kind)} for kind in KINDS.values()]
    assert config.nav is not None
    where = next(i for i, entry in enumerate(config.nav) if "Reference" in entry)
    config.nav.insert(where, {"What is registered": kinds})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site."""
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Make links of the papers that docstrings name; a formula after `::` is code by its indentation alone."""
    html = html.replace("::</p>", ":</p>")
    return re.sub(r"(?<![/>\w])arXiv:(\d{4}\.\d{4,5})", lambda found: _paper(found[0], html=True), html)


def _front() -> dict[str, str]:
    """Return the pages that are parts of the README, and the benchmarks' results."""
    front, *sections = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## ")
    part = {section.partition("\n")[0]: section.partition("\n")[2] for section in sections}
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    apart = ("What exists", "Numbers", "What is checked", "Licence")
    numbers = "\n".join(f"## {title}\n{text}" for title, text in part.items() if title not in apart)
    texts = {
        "index.md": f"{front}\n## What exists\n{part['What exists']}",
        "numbers.md": f"# Numbers\n{part['Numbers']}\n{numbers}",
        "checked.md": f"# What is checked\n{part['What is checked']}",
        "results.md": results,
    }
    return {path: _inside(text) for path, text in texts.items()}


def _inside(text: str) -> str:
    """Return a text of the repository with its links as they are on the site; to other files there are none."""
    text = text.replace("](docs/", "](").replace("](benchmarks/RESULTS.md)", "](results.md)")
    return re.sub(r"\[([^\]]+)\]\((?:\.\./)?(?:examples|benchmarks|tests|CONTRIBUTING)[^)]*\)", r"\1", text)


def _nav(kind: type[Record]) -> list[str]:
    folder = f"registered/{kind.kind}s"
    return [f"{folder}/index.md", *(f"{folder}/{name}.md" for name in registry().records(kind))]


def _index(kind: str, records: dict[str, Any]) -> str:
    rows = [
        f"| [`{name}`]({name}.md) | {record.summary} | {_paper(record.paper)} |" for name, record in records.items()
    ]
    return "\n".join(
        [
            f"# {kind.capitalize()}s",
            "",
            ABOUT[kind][0],
            "",
            "| name | what it does | paper |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _page(record: Record) -> str:
    facts = [f"*{record.kind}*", f"on the command line `{ABOUT[record.kind][1].format(name=record.name)}`"]
    if record.paper:
        facts.append(_paper(record.paper))
    if adapter := getattr(record, "adapter", ""):
        facts.append(f"for the domain [`{adapter}`](../adapters/{adapter}.md)")
    for part, given in record.parts().items() if isinstance(record, MethodRecord) else ():
        options = "".join(f" `--{part}.{option} {value}`" for option, value in given.items() if option != "name")
        facts.append(f"trained with [`{given['name']}`](../{part}s/{given['name']}.md){options}")
    if record.extra:
        facts.append(f"needs `pip install '{record.extra}'`")
    assert isinstance(record.factory, str)
    made_by = f"::: {record.factory.replace(':', '.')}"
    if isinstance(record, RecipeRecord):
        package, _, file = record.factory.partition(":")
        made_by = f"```yaml\n{files(package).joinpath(file).read_text(encoding='utf-8')}```"
    lines = [
        f"# {record.name}",
        "",
        f"{record.summary}.",
        "",
        " · ".join(facts),
        "",
        made_by,
        "",
    ]
    return "\n".join(lines)


def _paper(paper: str, *, html: bool = False) -> str:
    """Return where a paper is found as a link, if it says so."""
    number = paper.removeprefix("arXiv:")
    if number == paper:
        return paper
    address = f"https://arxiv.org/abs/{number}"
    return f'<a href="{address}">{paper}</a>' if html else f"[{paper}]({address})"

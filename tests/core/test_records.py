from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from kontrast import (
    InvalidValueError,
    KontrastError,
    MethodRecord,
    MissingExtraError,
    ObjectiveRecord,
    PluginError,
    RecipeRecord,
    SamplerRecord,
    UnknownNameError,
)
from kontrast.records import Record
from kontrast.registry import KINDS, registry


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.kind)
def test_our_factories_import_and_are_typed(kind: type[Record]) -> None:
    own = [plugin for plugin in registry().plugins if plugin.distribution == "kontrast"]
    records = [record for plugin in own for record in plugin.records if isinstance(record, kind)]
    assert records
    for record in records:
        assert record.summary, record
        try:
            signature = record.signature()
        except MissingExtraError:
            assert record.extra, record
            continue
        untyped = [p.name for p in signature.parameters.values() if p.annotation is p.empty or p.annotation is Any]
        assert not untyped, f"{record.name}: the command line takes options from types, and {untyped} have none"


def test_a_factory_may_be_a_callable() -> None:
    def factory(width: "int" = 3) -> object:
        return width

    record = MethodRecord("mine", factory)
    assert record.load() is factory
    assert record.signature().parameters["width"].annotation is int


@pytest.mark.parametrize("factory", ["module_of_needy:make", "a_module_nobody_has.part:make"])
def test_a_missing_package_names_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str) -> None:
    (tmp_path / "module_of_needy.py").write_text("import a_module_nobody_has\ndef make(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    record = MethodRecord("with-extra", factory, extra="needy[all]")
    sentence = r"method `with-extra` needs the package `a_module_nobody_has`, which is not installed; "
    with pytest.raises(MissingExtraError, match=sentence + r"run `pip install 'needy\[all\]'`") as caught:
        record.load()
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    with pytest.raises(MissingExtraError, match=sentence + "install `a_module_nobody_has`"):
        replace(record, extra="").load()


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("kontrast.plugins.hooks:nothing_there", "could not be loaded from .*AttributeError: .*nothing_there"),
        ("kontrast.plugins:__doc__", "kontrast.plugins:__doc__ must be callable, got .Methods"),
        ("kontrast.no_such_file:thing", "kontrast.no_such_file"),
    ],
)
def test_a_factory_that_leads_nowhere_is_the_plugins_fault(factory: str, message: str) -> None:
    with pytest.raises(PluginError, match=message) as caught:
        MethodRecord("lost", factory).load()
    # Nothing can be installed to mend it, so nobody is told to.
    assert not isinstance(caught.value, MissingExtraError)


@pytest.mark.parametrize("factory", ["", "module", "module:", ":name", "a b:c", "a:b:c", 3, None])
def test_a_factory_has_one_of_two_forms(factory: object) -> None:
    with pytest.raises(
        InvalidValueError, match=r"factory of method `x` must be a callable or 'package.module:attribute'"
    ):
        MethodRecord("x", cast(Any, factory))


@pytest.mark.parametrize("name", ["", "SimCLR", "sim clr", "sim_clr", "-x", "x-", "a--b", "a:b", "x\n"])
def test_a_name_is_lower_case_with_hyphens(name: str) -> None:
    with pytest.raises(InvalidValueError, match="a sampler's name must be lower-case"):
        SamplerRecord(name, "a:b")


@pytest.mark.parametrize("field", ["summary", "paper", "extra"])
@pytest.mark.parametrize("text", [3, None, "two\nlines"])
def test_a_text_is_one_line(field: str, text: Any) -> None:
    with pytest.raises(InvalidValueError, match=f"the {field} of objective `x` must be one line of text, got"):
        ObjectiveRecord("x", "a:b", **{field: text})


def test_a_recipe_in_what_is_no_package_is_a_sentence() -> None:
    with pytest.raises(PluginError, match=r"recipe `x` could not be read from os:nothing\.yaml: TypeError"):
        RecipeRecord("x", "os:nothing.yaml").load()


def test_a_names_article_fits_its_kind() -> None:
    with pytest.raises(InvalidValueError, match=r"^an objective's name must be"):
        ObjectiveRecord("X", "a:b")


def test_an_unknown_name_is_one_sentence_not_its_repr() -> None:
    error = UnknownNameError("option", "b", ["c", "a"], hint=" Hint.")
    assert str(error) == "no option `b`. Known: a, c Hint."
    assert str(UnknownNameError("option", "b", [])) == "no option `b`. Known: none"
    assert error.name == "b"
    assert isinstance(error, KontrastError)
    assert isinstance(error, KeyError)

import inspect
import json
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from os.path import join
from pathlib import Path
from typing import Any

import pytest

import kontrast.registry
from kontrast import (
    MethodRecord,
    ObjectiveRecord,
    ObserverRecord,
    OptimizerRecord,
    PluginError,
    SamplerRecord,
    UnknownNameError,
    get_record,
    get_records,
    hookspec,
)
from kontrast.cli import main
from kontrast.records import Record
from kontrast.registry import KINDS, Plugin, PluginWarning, Registry


class Site:
    """A folder on sys.path into which distributions are put: a module and real metadata, as pip would leave them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def add(self, distribution: str, source: str, *, entry: str | None = None, module: str | None = None) -> str:
        """Install a distribution whose one entry point is `entry`; returns its module's name."""
        stem = distribution.replace("-", "_")
        module = module or f"site_{stem}"
        (self.folder / f"{module}.py").write_text(source)
        metadata = self.folder / f"{stem}-1.2.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        (metadata / "entry_points.txt").write_text(f"[kontrast]\n{entry or distribution} = {module}\n")
        return module


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    made = Site(tmp_path / "site")
    monkeypatch.syspath_prepend(made.folder)
    before = set(sys.modules)
    yield made
    for name in set(sys.modules) - before:
        if name.startswith("site_"):
            del sys.modules[name]


@pytest.fixture
def fresh() -> Iterator[None]:
    """This process's registry is made anew, in the test and after it."""
    kontrast.registry.registry.cache_clear()
    yield
    kontrast.registry.registry.cache_clear()


def provides(*names: str, hook: str = "kontrast_methods", factory: str = "os.path:join", more: str = "") -> str:
    kind = KINDS[hook].__name__
    records = ", ".join(f"{kind}({name!r}, {factory!r}{more})" for name in names)
    return f"import kontrast\nfrom kontrast import {kind}\n@kontrast.hookimpl\ndef {hook}():\n    return [{records}]\n"


def quiet(make: Callable[[], Registry]) -> Registry:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)
        return make()


def plugin(registry: Registry, name: str) -> Plugin:
    (found,) = [plugin for plugin in registry.plugins if plugin.name == name]
    return found


OURS: list[tuple[type[Record], str]] = [
    (MethodRecord, "simclr"),
    (MethodRecord, "byol"),
    (MethodRecord, "moco-v2"),
    (MethodRecord, "vicreg"),
    (ObjectiveRecord, "info-nce"),
    (SamplerRecord, "queue"),
    (kontrast.EncoderRecord, "resnet18"),
    (kontrast.AugmenterRecord, "affine-views"),
    (kontrast.AdapterRecord, "vision"),
    (ObserverRecord, "progress"),
    (OptimizerRecord, "lars"),
    (kontrast.ProbeRecord, "knn"),
    (kontrast.RecipeRecord, "simclr-digits"),
]


@pytest.mark.parametrize(("kind", "name"), OURS)
def test_our_own_names_enter_by_the_same_door(kind: type[Record], name: str) -> None:
    record = get_record(kind, name)
    assert record.name == name
    assert get_records(kind)[name] is record
    providers = {plugin.distribution for plugin in kontrast.registry.registry().plugins if record in plugin.records}
    assert providers == {"kontrast"}


@pytest.mark.parametrize("hook", KINDS)
def test_every_hook_takes_nothing_and_returns_its_records(hook: str) -> None:
    signature = inspect.signature(getattr(hookspec, hook))
    assert not signature.parameters
    assert signature.return_annotation == Iterable[KINDS[hook]]  # type: ignore[valid-type]  # a type known at run time


def test_an_unknown_name_offers_near_ones_and_all() -> None:
    with pytest.raises(UnknownNameError, match=r"^no method `simcrl`; did you mean `simclr`.*\? Known: .*byol, .*moco"):
        get_record(MethodRecord, "simcrl")
    with pytest.raises(KeyError, match=r"^no objective `zzzzzz`\. Known: "):
        get_record(ObjectiveRecord, "zzzzzz")


IMPL = "import kontrast\nfrom kontrast import MethodRecord, ObjectiveRecord\n@kontrast.hookimpl\n"
BROKEN = {
    "missing import": ("import a_module_nobody_has", "import", "No module named 'a_module_nobody_has'"),
    "syntax error": ("def (:", "import", "SyntaxError"),
    "raises at import": ("raise OSError('no licence')", "import", "OSError: no licence"),
    "unknown hook": (
        f"{IMPL}def kontrast_method(): return []",
        "hooks",
        "no hook `kontrast_method`; did you mean `kontrast_methods`",
    ),
    "unmarked hook": ("def kontrast_methods(): return []", "hooks", "must be marked by @kontrast.hookimpl"),
    "unknown argument": (f"{IMPL}def kontrast_methods(best): return []", "hooks", "best"),
    "misspelt and unmarked": ("def kontrast_metods(): return []", "hooks", "no hook `kontrast_metods`; did you mean"),
    "no hook": ("X = 1", "hooks", "`site_m_broken` has no function marked by @kontrast.hookimpl"),
    "raising hook": (
        f"{IMPL}def kontrast_methods(): return 1 / 0",
        "records",
        "kontrast_methods raised ZeroDivisionError: division by zero",
    ),
    "no list": (
        f"{IMPL}def kontrast_methods(): return MethodRecord('a', 'm:f')",
        "records",
        "`kontrast_methods` must return a list of records, got method `a`",
    ),
    "no return": (
        f"{IMPL}def kontrast_methods(): [MethodRecord('a', 'm:f')]",
        "records",
        "`kontrast_methods` must return a list of records, got None",
    ),
    "other record": (
        f"{IMPL}def kontrast_methods(): return [ObjectiveRecord('a', 'm:f')]",
        "records",
        "kontrast_methods must return MethodRecord records, got objective `",
    ),
    "malformed factory": (provides("a", factory="os.path"), "records", "must be a callable or 'package.module:attr"),
    "malformed name": (provides("My_Method"), "records", "must be lower-case letters, digits and single hyphens"),
    "one name twice": (provides("twin", "twin"), "records", "kontrast_methods returns method `twin` twice"),
}


@pytest.mark.parametrize(("source", "stage", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_one_warning_and_harms_no_other(site: Site, source: str, stage: str, message: str) -> None:
    site.add("a-good", provides("from-a"))
    site.add("m-broken", source)
    site.add("z-good", provides("from-z"))
    with pytest.warns(PluginWarning) as caught:
        registry = Registry()
    assert len(caught) == 1
    assert str(caught[0].message).startswith(f"plugin `m-broken` (m-broken 1.2) failed at {stage}: ")
    assert message in str(caught[0].message)
    assert str(caught[0].message).endswith("; mend it or set KONTRAST_DISABLE_PLUGINS=m-broken")
    assert {"from-a", "from-z", "simclr"} <= set(registry.records(MethodRecord))
    failed = plugin(registry, "m-broken")
    assert (failed.state, failed.stage, failed.records) == ("failed", stage, ())
    # A name it would have provided: the sentence names the plugin, and its error is the cause.
    with pytest.raises(
        UnknownNameError, match=r"no method `from-m`.*Not loaded: plugin `m-broken` \(m-broken 1\.2\)"
    ) as e:
        registry.get(MethodRecord, "from-m")
    assert e.value.__cause__ is failed.error


def test_two_distributions_with_one_entry_point_name_both_fail_by_name(site: Site) -> None:
    first = site.add("dist-b", provides("from-b"), entry="twin")
    second = site.add("dist-a", provides("from-a"), entry="twin")
    with pytest.warns(PluginWarning, match=r"`twin` is claimed by dist-a 1\.2 and dist-b 1\.2"):
        registry = Registry()
    twins = [plugin for plugin in registry.plugins if plugin.name == "twin"]
    assert [(twin.distribution, twin.state, twin.stage) for twin in twins] == [
        ("dist-a", "failed", "name"),
        ("dist-b", "failed", "name"),
    ]
    assert not {"from-a", "from-b"} & set(registry.records(MethodRecord))
    assert not {first, second} & set(sys.modules)


@pytest.mark.parametrize("module", ["site_squatter", "kontrast.plugins.hooks"])
@pytest.mark.parametrize("distribution", ["a-squatter", "z-squatter"])
def test_a_plugin_that_is_not_allowed_cannot_take_a_name_away(site: Site, distribution: str, module: str) -> None:
    # Such as a fork under another name, whose entry points are ours to the letter.
    site.add(distribution, provides("from-squatter"), entry="kontrast-methods", module=module)
    registry = Registry(allow=())
    assert "simclr" in registry.records(MethodRecord)
    claims = [(claim.distribution, claim.state) for claim in registry.plugins if claim.name == "kontrast-methods"]
    assert sorted(claims) == sorted([("kontrast", "loaded"), (distribution, "disabled")])


def test_two_claims_on_one_record_name(site: Site) -> None:
    site.add("dist-b", provides("both", "only-b", factory="os.path:split"))
    site.add("dist-a", provides("both", factory="os.path:join"))
    registry = Registry()
    assert "both" not in registry.records(MethodRecord)
    assert "only-b" in registry.records(MethodRecord)
    with pytest.raises(
        PluginError,
        match=r"`both` is claimed by plugin `dist-a` \(dist-a 1\.2\) and plugin `dist-b` \(dist-b 1\.2\); "
        "write `dist-a:both` or `dist-b:both`",
    ):
        registry.get(MethodRecord, "both")
    assert registry.get(MethodRecord, "dist-a:both").factory == "os.path:join"
    # Distribution names compare as packaging compares them.
    assert registry.get(MethodRecord, "Dist_B:both").factory == "os.path:split"
    assert registry.get(MethodRecord, "dist-b:only-b").name == "only-b"
    with pytest.raises(UnknownNameError, match="no method `dist-c:both`"):
        registry.get(MethodRecord, "dist-c:both")


DOMAIN = """
import kontrast
from kontrast import AdapterRecord, EncoderRecord, ObserverRecord, OptimizerRecord, ProbeRecord
@kontrast.hookimpl
def kontrast_adapters():
    return [AdapterRecord("mine", "os:a")]
@kontrast.hookimpl
def kontrast_encoders():
    return [EncoderRecord("tower", "os:a", adapter="mine"), EncoderRecord("small-cnn", "os:a", adapter="vision")]
@kontrast.hookimpl
def kontrast_observers():
    return [ObserverRecord("progress", "os:a")]
@kontrast.hookimpl
def kontrast_optimizers():
    return [OptimizerRecord("adamw", "os:a")]
@kontrast.hookimpl
def kontrast_probes():
    return [ProbeRecord("knn", "os:a"), ProbeRecord("linear", "os:a")]
"""
THIRD = (
    DOMAIN.partition("@")[0]
    + """
@kontrast.hookimpl
def kontrast_encoders():
    return [EncoderRecord("third", "os:a", adapter="mine")]
"""
)


def test_two_distributions_may_claim_one_domain(site: Site) -> None:
    site.add("dist-a", DOMAIN)
    site.add("dist-b", DOMAIN)
    site.add("dist-c", THIRD)
    registry = Registry()
    tower = registry.get(kontrast.EncoderRecord, "dist-a:tower")
    fits = [registry.is_for(tower, name) for name in ("dist-a:mine", "Dist_A:mine", "dist-b:mine", "vision")]
    assert fits == [True, True, False, False]
    third = registry.get(kontrast.EncoderRecord, "third")  # of one that provides no such domain: for both
    assert [registry.is_for(third, name) for name in ("dist-a:mine", "dist-b:mine", "vision")] == [True, True, False]
    assert registry.is_for(registry.get(kontrast.ProbeRecord, "kontrast:knn"), "dist-a:mine")
    # A domain's defaults are its own distribution's.
    assert registry.own(kontrast.EncoderRecord, "tower", "dist-b", "kontrast") == "dist-b:tower"
    assert registry.own(OptimizerRecord, "adamw", "dist-c", "kontrast") == "kontrast:adamw"
    assert registry.own(OptimizerRecord, "sgd", "kontrast") == "sgd"


@pytest.mark.usefixtures("fresh")
def test_what_another_claims_takes_no_default_away(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.add("dist-a", DOMAIN)
    out = str(site.folder / "run")
    arguments = ["--epochs=1", "--batch_size=600", "--warmup_epochs=0", "--encoder.width=4", f"--out={out}"]
    assert main(["train", "simclr", *arguments]) == 0
    assert json.loads((Path(out) / "config.json").read_text())["encoder"]["name"] == "kontrast:small-cnn"
    capsys.readouterr()
    assert main(["evaluate", out]) == 0
    assert "knn" in capsys.readouterr().out
    assert main(["train", "simclr", "--optimizer=adamw", *arguments]) == 2
    assert "optimizer `adamw` is claimed by" in capsys.readouterr().err


@pytest.mark.usefixtures("fresh")
def test_describe_takes_a_distribution_as_packaging_does(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    record = provides("from-a", hook="kontrast_optimizers", factory="kontrast:SGD")
    site.add("dist-a", record)
    assert main(["describe", "Dist_A:from-a"]) == 0
    assert "provided by  dist-a 1.2" in capsys.readouterr().out


@pytest.mark.usefixtures("fresh")
def test_a_variable_that_names_no_plugin_and_a_name_of_a_disabled_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add("plug-a", provides("from-a"))
    monkeypatch.setenv("KONTRAST_PLUGINS", "plug-z")
    monkeypatch.setenv("KONTRAST_DISABLE_PLUGINS", "plug-b, plug-a")
    with pytest.warns(kontrast.KontrastWarning) as caught:
        registry = kontrast.registry.registry()
    first, second = [str(one.message) for one in caught]
    assert first.startswith("KONTRAST_PLUGINS: no plugin `plug-z`; did you mean `plug-a`")
    assert second.startswith("KONTRAST_DISABLE_PLUGINS: no plugin `plug-b`; did you mean `plug-a`")
    with pytest.raises(UnknownNameError, match=r"Not loaded: plugin `plug-a` \(plug-a 1\.2\) disabled$"):
        registry.get(MethodRecord, "from-a")


@pytest.mark.parametrize("by", ["argument", "environment"])
@pytest.mark.parametrize(
    ("allow", "block", "loaded"),
    [
        (None, {"plug-b"}, {"plug-a"}),
        ({"plug-a"}, set(), {"plug-a"}),
        ({"plug-a", "plug-b"}, {"plug-a"}, {"plug-b"}),
        (set(), set(), set()),
    ],
)
@pytest.mark.usefixtures("fresh")
def test_what_is_not_allowed_or_is_blocked_is_never_imported(
    site: Site, monkeypatch: pytest.MonkeyPatch, by: str, allow: set[str] | None, block: set[str], loaded: set[str]
) -> None:
    modules = {name: site.add(name, provides(f"from-{name}")) for name in ("plug-a", "plug-b")}
    if by == "argument":
        registry = Registry(allow=allow, block=block)
    else:
        monkeypatch.delenv("KONTRAST_PLUGINS", raising=False)
        if allow is not None:
            monkeypatch.setenv("KONTRAST_PLUGINS", " , ".join(sorted(allow)))
        monkeypatch.setenv("KONTRAST_DISABLE_PLUGINS", ",".join(sorted(block)))
        registry = kontrast.registry.registry()
    assert {name for name, module in modules.items() if module in sys.modules} == loaded
    for name in modules:
        assert plugin(registry, name).state == ("loaded" if name in loaded else "disabled")
        assert (f"from-{name}" in registry.records(MethodRecord)) == (name in loaded)
    assert "simclr" in registry.records(MethodRecord)


def test_our_own_plugins_can_be_blocked_too() -> None:
    registry = Registry(block={"kontrast-methods"})
    assert plugin(registry, "kontrast-methods").state == "disabled"
    assert "vision" in registry.records(kontrast.AdapterRecord)
    with pytest.raises(UnknownNameError, match="no method `simclr`"):
        registry.get(MethodRecord, "simclr")


def test_the_order_is_that_of_names_not_of_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[str], list[str], list[str]]] = []
    for folder, order in (("x", "cab"), ("y", "bca")):
        tag = f"site_{folder}"
        for letter in order:
            other = Site(tmp_path / f"{folder}{letter}")
            other.add(f"plug-{letter}", provides(f"by-{letter}"), module=f"{tag}_{letter}")
            monkeypatch.syspath_prepend(other.folder)
        registry = Registry()
        own = [name for name in registry.records(MethodRecord) if name.startswith("by-")]
        imported = [name.removeprefix(tag) for name in sys.modules if name.startswith(tag)]
        seen.append(([plugin.name for plugin in registry.plugins], own, imported))
        monkeypatch.undo()
    assert seen[0] == seen[1]
    assert seen[0][1:] == (["by-a", "by-b", "by-c"], ["_a", "_b", "_c"])
    assert seen[0][0] == sorted(seen[0][0])
    for name in [name for name in sys.modules if name.startswith("site_")]:
        del sys.modules[name]


@pytest.mark.parametrize("hook", KINDS)
def test_every_kind_of_record_goes_round(site: Site, hook: str) -> None:
    more = ", summary='A line', paper='arXiv:1', extra='round[x]'"
    recipe = hook == "kontrast_recipes"
    factory = "kontrast.plugins:recipes/simclr-digits.yaml" if recipe else "os.path:join"
    site.add("round", provides("trip", hook=hook, factory=factory, more=more))
    registry, kind = Registry(), KINDS[hook]
    record = registry.get(kind, "trip")
    assert type(record) is kind
    assert (record.summary, record.paper, record.extra) == ("A line", "arXiv:1", "round[x]")
    assert record.provider == "plugin `round` (round 1.2)"
    assert record.load()()["epochs"] == 120 if recipe else record.load() is join
    # Each kind is a namespace of its own.
    others = [other for other in KINDS.values() if other is not kind]
    assert all("trip" not in registry.records(other) for other in others)


OPTIMIZER = '''
from dataclasses import dataclass
import torch
import kontrast
from kontrast import OptimizerRecord

@dataclass(frozen=True)
class Steady(kontrast.OptimizerSettings):
    """Steps of one length.

    Args:
        learning_rate: the length.
        rule: which.
    """

    learning_rate: float = 0.5
    rule: str = "sign"

    def build(self, module):
        return torch.optim.Rprop(module.parameters(), lr=self.learning_rate)

@kontrast.hookimpl
def kontrast_optimizers():
    return [OptimizerRecord("steady", Steady, "Steps of one length"), OptimizerRecord("none", dict, "No optimizer")]
'''


@pytest.mark.usefixtures("fresh")
def test_an_optimizer_of_another_distribution_is_listed_described_and_trains(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.add("plug-steady", OPTIMIZER)
    assert main(["list", "optimizers"]) == 0
    names = [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]]
    assert names == ["adamw", "lars", "none", "sgd", "steady"]
    assert main(["describe", "steady"]) == 0
    described = capsys.readouterr().out
    assert "provided by  plug-steady 1.2" in described
    assert ["learning_rate", "float", "0.5", "the", "length."] in [line.split() for line in described.splitlines()]
    out = site.folder / "run"
    arguments = ["--optimizer=steady", "--optimizer.learning_rate=0.25", "--epochs=1", "--batch_size=600"]
    assert main(["train", "simclr", *arguments, "--warmup_epochs=0", "--encoder.width=4", f"--out={out}"]) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["optimizer"] == {"name": "steady", "learning_rate": 0.25, "rule": "sign"}
    assert json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["learning_rate"] == 0.25
    capsys.readouterr()
    assert main(["train", "simclr", "--optimizer=none", f"--out={site.folder / 'other'}"]) == 2
    assert "the factory of optimizer `none` must return kontrast.OptimizerSettings, got {}" in capsys.readouterr().err
    assert main(["train", "simclr", "--optimizer=stedy", f"--out={site.folder / 'other'}"]) == 2
    assert "no optimizer `stedy`; did you mean `steady`" in capsys.readouterr().err


@pytest.fixture
def here() -> Iterator[None]:
    """What a test registers in this process is gone after it."""
    yield
    kontrast.registry._registered.clear()


@pytest.mark.usefixtures("here")
def test_a_notebook_registers_by_a_record_or_a_decorator() -> None:
    @kontrast.register(ObjectiveRecord, "mine", paper="arXiv:1")
    class Mine:
        """What it does.

        More of it.
        """

    kontrast.register(MethodRecord("mine", "os.path:join", "A line"))
    record = get_record(ObjectiveRecord, "mine")
    assert (record.factory, record.summary, record.paper) == (Mine, "What it does", "arXiv:1")
    assert get_records(MethodRecord)["mine"].summary == "A line"
    found: object = kontrast.get_method("mine")
    assert found is join
    provider = kontrast.registry.registry().plugins[-1]
    assert (provider.name, provider.state) == (__name__, "registered")
    assert get_record(ObjectiveRecord, f"{__name__}:mine") is record


@pytest.mark.parametrize("given", [(type("MyLoss", (), {}),), ("my-loss",), (ObjectiveRecord,)], ids=str)
def test_what_would_register_nothing_is_refused(given: tuple[Any, ...]) -> None:
    with pytest.raises(
        kontrast.InvalidValueError, match=r'write e\.g\. @kontrast\.register\(kontrast.Obj.*, "my-loss"\)'
    ):
        kontrast.register(*given)


@pytest.mark.usefixtures("here")
def test_a_cell_that_is_run_again_replaces_what_it_registered() -> None:
    def cell(number: int) -> type:
        @kontrast.register(ObjectiveRecord, "mine")
        class Mine:
            value = number

        return Mine

    cell(1)
    second = cell(2)
    assert get_record(ObjectiveRecord, "mine").factory is second
    with pytest.raises(
        kontrast.InvalidValueError,
        match=r"objective `mine` is registered in this process already, by test_registry for .*Mine; choose another",
    ):
        kontrast.register(ObjectiveRecord("mine", "os.path:join"))


@pytest.mark.usefixtures("here")
def test_a_name_that_a_plugin_has_too_is_ambiguous() -> None:
    kontrast.register(ObjectiveRecord("info-nce", "os.path:join"))
    assert "info-nce" not in get_records(ObjectiveRecord)
    with pytest.raises(
        PluginError, match=rf"`info-nce` is claimed by .*write `kontrast:info-nce` or `{__name__}:info-nce`"
    ):
        kontrast.get_objective("info-nce")
    assert get_record(ObjectiveRecord, f"{__name__}:info-nce").load() is join
    assert get_record(ObjectiveRecord, "kontrast:info-nce").paper == "arXiv:1807.03748"

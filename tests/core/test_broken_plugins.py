"""Twelve broken plugins beside a good one, each in a distribution of its own, seen through the command line."""

import json
import re
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from gloo import GlooPool
from site_packages import install, run

import kontrast
import kontrast.same_plugins
from kontrast.registry import Plugin

HEAD = "import kontrast\nfrom kontrast import MethodRecord, ObjectiveRecord\n"
HOOK = f"{HEAD}@kontrast.hookimpl\ndef kontrast_objectives():\n    "
GOOD = f'{HOOK}return [ObjectiveRecord("good", "good_objective:Good", "It works")]\n'
OBJECTIVE = '''"""The good one's objective."""

import kontrast as kt


class Good(kt.Objective):
    """Pull positives together."""

    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        """Return minus the positives' mean score."""
        rows = kt.row_statistics(pairs, temperature=1.0)
        return kt.Loss.over_rows(-rows.positive_mean, rows.positive_count > 0)
'''

# name: (source, more of the distribution, state, stage, cause)
BROKEN: dict[str, tuple[str, dict[str, object], str, str, str]] = {
    "bad-import": ("import a_module_nobody_has", {}, "failed", "import", "No module named 'a_module_nobody_has'"),
    "bad-syntax": ("def (:", {}, "failed", "import", "SyntaxError: "),
    "bad-argument": (
        f"{HEAD}@kontrast.hookimpl\ndef kontrast_objectives(best): return []",
        {},
        "failed",
        "hooks",
        "`kontrast_objectives` must take no arguments, got (best)",
    ),
    "bad-hook-name": (
        f"{HEAD}@kontrast.hookimpl\ndef kontrast_objektives(): return []",
        {},
        "failed",
        "hooks",
        "no hook `kontrast_objektives`; did you mean `kontrast_objectives`",
    ),
    "bad-duplicate": (
        f"{HOOK}return [ObjectiveRecord('twin', 'os:a'), ObjectiveRecord('twin', 'os:b')]",
        {},
        "failed",
        "records",
        "kontrast_objectives returns objective `twin` twice",
    ),
    "bad-record": (
        f"{HOOK}return [MethodRecord('wrong', 'os:a')]",
        {},
        "failed",
        "records",
        "kontrast_objectives must return ObjectiveRecord records, got method `wrong`",
    ),
    "bad-factory": (
        f"{HOOK}return [ObjectiveRecord('raises', make)]\ndef make():\n    raise OSError('no licence')",
        {},
        "loaded",  # what a factory does shows when it is called: `--load`, `kontrast check`, or its use
        "",
        "",
    ),
    "bad-version": (
        f"{HOOK}return []",
        {"requires": "kontrast>=99"},
        "failed",
        "version",
        "it needs kontrast>=99, and 0.",
    ),
    "bad-hook": (f"{HOOK}return 1 / 0", {}, "failed", "records", "ZeroDivisionError: division by zero"),
    "bad-speed": (
        f"import time\ntime.sleep(0.3)\n{HOOK}return [ObjectiveRecord('slow', 'os:a')]",
        {},
        "loaded",
        "",
        "",
    ),
    "bad-circle": (
        "import circle_half\nPART = 1",
        {},
        "failed",
        "import",
        "cannot import name 'PART' from partially initialized module 'bad_circle'",
    ),
    "bad-metadata": (f"{HOOK}return []", {"metadata": False}, "failed", "metadata", "must have METADATA with a name"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("broken") / "site"
    install(folder, "good", GOOD)
    (folder / "good_objective.py").write_text(OBJECTIVE)
    (folder / "circle_half.py").write_text("from bad_circle import PART\n")
    for name, (source, more, *_) in BROKEN.items():
        install(folder, name, source, **more)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return folder


def test_each_is_listed_with_its_cause_and_harms_no_other(site: Path) -> None:
    done = run("-m", "kontrast", "plugins", "--json", sites=[site])
    assert done.stderr == ""  # what failed is said once, in the listing
    assert done.returncode == 1
    found = {plugin["name"]: plugin for plugin in json.loads(done.stdout)}
    assert set(found) == {"good", "kontrast-domains", "kontrast-methods", *BROKEN}
    for name, (_, _, state, stage, cause) in BROKEN.items():
        plugin = found[name]
        assert (plugin["state"], plugin["stage"]) == (state, stage), plugin
        assert cause in plugin["cause"], plugin
        assert bool(plugin["cause"]) == (state == "failed")
    assert found["bad-speed"]["import_seconds"] >= 0.3
    assert all(plugin["import_seconds"] < 0.3 for name, plugin in found.items() if name == "good")
    assert found["good"]["provides"] == ["objective good"]
    assert found["bad-metadata"]["distribution"] == "?"


def test_the_table_has_a_line_for_each_and_nothing_twice(site: Path) -> None:
    done = run("-m", "kontrast", "plugins", sites=[site])
    assert (done.returncode, done.stderr) == (1, "")
    head, *lines = done.stdout.splitlines()
    assert head.split("  ")[0] == "plugin"
    assert [line.split()[0] for line in lines] == sorted(["good", "kontrast-domains", "kontrast-methods", *BROKEN])
    for name, (*_, stage, cause) in BROKEN.items():
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        assert f"{stage}: " in line or not stage
        assert cause in line
    (slow,) = [line for line in lines if line.startswith("bad-speed")]
    seconds = re.search(r"(\d+\.\d\d) s", slow)
    assert seconds is not None
    assert float(seconds[1]) >= 0.3


WRONG = f"""{HEAD}
from kontrast import SamplerRecord
@kontrast.hookimpl
def kontrast_objectives():
    return [ObjectiveRecord("word", word, "A word: os:A: is no emoji")]
@kontrast.hookimpl
def kontrast_samplers():
    return [SamplerRecord("wordy", word)]
def word():
    print("hello")
    return "a word"
"""


def test_a_factory_that_raises_or_makes_something_else_shows_where_it_is_made(site: Path, tmp_path: Path) -> None:
    install(tmp_path / "site", "bad-product", WRONG)
    allowed = {
        "KONTRAST_PLUGINS": "good,bad-factory,bad-product",
        "KONTRAST_DISABLE_PLUGINS": "kontrast-methods,kontrast-domains",
        "KONTRAST_TRACEBACK": "1",
    }
    done = run("-m", "kontrast", "plugins", "--load", "--json", sites=[site, tmp_path / "site"], environment=allowed)
    found = {plugin["name"]: plugin for plugin in json.loads(done.stdout) if plugin["state"] != "disabled"}
    assert {name: plugin["state"] for name, plugin in found.items()} == {
        "good": "loaded",
        "bad-factory": "failed",
        "bad-product": "failed",
    }
    assert found["bad-factory"]["stage"] == "objective `raises`"
    assert found["bad-factory"]["cause"] == "OSError: no licence"
    assert "in make\n" in done.stderr  # the traceback
    assert "must return a kontrast.Objective, got 'a word'" in found["bad-product"]["cause"]


DESCRIPTIONS = """
import sys
from kontrast.cli import main
for name in ("info-nce", "in-batch", "raises", "word"):
    print(main(["describe", name]), file=sys.stderr)
main(["list", "objectives"])
"""


def test_broken_factories_do_not_keep_ours_from_being_described(site: Path, tmp_path: Path) -> None:
    install(tmp_path / "site", "bad-product", WRONG)
    more = {"KONTRAST_PLUGINS": "good,bad-factory,bad-product"}
    done = run("-c", DESCRIPTIONS, sites=[site, tmp_path / "site"], environment=more)
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines() == [
        "0",
        "0",
        "kontrast: objective `raises` of plugin `bad-factory` (bad-factory 1.2) raised OSError: no licence; "
        "KONTRAST_TRACEBACK=1 shows where",
        "2",
        "kontrast: the factory of objective `word` of plugin `bad-product` (bad-product 1.2) must return a "
        "kontrast.Objective, got 'a word'",
        "2",
    ]
    (objectives,) = [line for line in done.stdout.splitlines() if line.split()[:3] == ["goes", "with", "objectives"]]
    assert "good" in objectives
    assert "word" not in objectives
    assert "os:A: is no emoji" in done.stdout


def test_every_other_command_says_each_failure_once_and_works(site: Path) -> None:
    done = run("-m", "kontrast", "list", "objectives", sites=[site])
    assert done.returncode == 0
    names = [line.split()[1] for line in done.stdout.splitlines()]
    assert {"good", "info-nce", "slow", "raises"} <= set(names)
    failed = [name for name, (_, _, state, *_) in BROKEN.items() if state == "failed"]
    said = done.stderr.splitlines()
    assert len(said) == len(failed)
    for name in failed:
        (line,) = [line for line in said if f"`{name}`" in line]
        assert line.startswith(f"kontrast: plugin `{name}` (")
        assert line.endswith(f"mend it or set KONTRAST_DISABLE_PLUGINS={name}")


def test_the_good_one_is_used_and_a_lost_name_says_why(site: Path) -> None:
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "import kontrast as kt\n"
        "print(type(kt.get_objective('good')()).__name__)\n"
        "try: kt.get_objective('twin')\n"
        "except kt.UnknownNameError as error: print('bad-duplicate' in str(error), error.__cause__ is not None)\n"
        "print(kt.get_record(kt.ObjectiveRecord, 'raises'))\n"
    )
    done = run("-c", code, sites=[site])
    assert done.stdout.splitlines() == [
        "Good",
        "True True",
        "objective `raises` of plugin `bad-factory` (bad-factory 1.2)",
    ]
    assert done.stderr == ""


COMMANDS = """
from kontrast.cli import main
for command in ("list objectives", "describe boht", "plugins"):
    main(command.split())
"""


def test_the_order_is_that_of_names_whatever_the_folders_and_the_installation(tmp_path: Path) -> None:
    outputs = set()
    for number, order in enumerate(("abc", "cba", "bca")):
        together, apart = tmp_path / f"one-{number}", []
        for letter in order:
            text = f"{HOOK}return [ObjectiveRecord('by-{letter}', 'os:a'), ObjectiveRecord('both', 'os:{letter}')]"
            install(together, f"plug-{letter}", text)
            apart.append(tmp_path / f"{number}-{letter}")
            install(apart[-1], f"plug-{letter}", text)
        for sites in ([together], apart):
            done = run("-c", COMMANDS, sites=sites)
            outputs.add((re.sub(r"\d+\.\d\d s", "", done.stdout), done.stderr))
    ((shown, said),) = outputs
    assert "no registered name `boht`; did you mean `both`" in said
    ours = [line.split()[1] for line in shown.splitlines() if line.startswith("objective") and "plug-" in line]
    assert ours == ["plug-a:both", "plug-b:both", "plug-c:both", "by-a", "by-b", "by-c"]


TRAININGS = """
import os, sys
from kontrast.cli import main
train = "train simclr --data digits --out run".split()
first = main([*train, "--objective", "raises"])
sys.stderr.write("====\\n")
os.environ["KONTRAST_TRACEBACK"] = "1"
second = main([*train, "--sampler", "raises"])
print(first, second, end="")
"""


def test_what_a_factory_raises_in_a_command_names_its_plugin_and_keeps_the_cause(tmp_path: Path) -> None:
    hooks = BROKEN["bad-factory"][0]
    install(tmp_path / "site", "bad-factory", hooks)
    install(tmp_path / "site", "bad-sampler", hooks.replace("objectives", "samplers").replace("Objective", "Sampler"))
    sentence = (
        "kontrast: {0} `raises` of plugin `bad-{1}` (bad-{1} 1.2) raised OSError: no licence; "
        "KONTRAST_TRACEBACK=1 shows where\n"
    )
    done = run("-c", TRAININGS, sites=[tmp_path / "site"], folder=tmp_path)
    assert done.stdout == "2 2"
    short, shown = done.stderr.split("====\n")
    assert short == sentence.format("objective", "factory")
    assert shown.endswith(sentence.format("sampler", "sampler"))
    assert "in make\n" in shown


BROKEN_PARTS = """
import kontrast
from kontrast import AdapterRecord, AugmenterRecord, EncoderRecord, ObserverRecord

@kontrast.hookimpl
def kontrast_adapters():
    return [AdapterRecord("later", "broken_parts:Later")]

@kontrast.hookimpl
def kontrast_encoders():
    return [EncoderRecord("once", "broken_parts:once", adapter="later")]

@kontrast.hookimpl
def kontrast_augmenters():
    return [AugmenterRecord("views", "kontrast.adapters.vision:AffineViews", adapter="later")]

@kontrast.hookimpl
def kontrast_observers():
    return [ObserverRecord("unlicensed", "broken_parts:unlicensed")]
"""
PARTS = """
import os
from kontrast.adapters.vision import SmallCNN
from kontrast.adapters.vision.adapter import VisionAdapter

class Later(VisionAdapter):
    default_encoder = "once"
    default_augmenter = "views"
    def load(self, source):
        if os.environ.get("FAILS") == "load":
            raise OSError("the share is not mounted")
        return super().load(source)

def once(width: int = 4):
    if os.environ.get("FAILS") == "once":
        raise OSError("the weights moved")
    return SmallCNN(in_channels=1, width=width)

def unlicensed():
    raise OSError("no licence")
"""


@pytest.mark.slow
def test_what_a_plugin_raises_when_a_run_is_watched_or_made_again_names_it(tmp_path: Path) -> None:
    site = tmp_path / "site"
    install(site, "parts", BROKEN_PARTS)
    (site / "broken_parts.py").write_text(PARTS)
    options = "--adapter later --epochs 1 --batch_size 500 --method.hidden_size 8 --out run"
    train = ("-m", "kontrast", "train", "simclr", *options.split())

    def said(*command: str, fails: str = "") -> str:
        done = run(*command, sites=[site], folder=tmp_path, environment={"FAILS": fails})
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        return done.stderr

    of = "`{0}` of plugin `parts` (parts 1.2) raised OSError: {1}; KONTRAST_TRACEBACK=1 shows where\n"
    load = "kontrast: adapter " + of.format("later", "the share is not mounted")
    assert said(*train, "--observers", "unlicensed") == "kontrast: observer " + of.format("unlicensed", "no licence")
    assert said(*train, fails="load") == load
    assert run(*train, sites=[site], folder=tmp_path).returncode == 0
    assert said("-m", "kontrast", "evaluate", "run", fails="load") == load
    assert said("-m", "kontrast", "evaluate", "run", fails="once") == "kontrast: encoder " + of.format(
        "once", "the weights moved"
    )


def test_a_requirement_that_is_met_and_what_is_printed_at_import(tmp_path: Path) -> None:
    install(tmp_path / "site", "good", f"print('hello')\n{GOOD}", requires="kontrast>=0.0.1")
    listed = run("-m", "kontrast", "list", "objectives", sites=[tmp_path / "site"])
    assert (listed.returncode, listed.stderr) == (0, "hello\n")
    assert "It works" in listed.stdout
    assert "hello" not in listed.stdout


@pytest.mark.parametrize(
    ("on_rank_1", "sentence"),
    [
        ({"PYTHONPATH": "other"}, "has plugin `good` of good 1.3 (loaded: objective good), rank 0"),
        ({"KONTRAST_DISABLE_PLUGINS": "good"}, "has plugin `good` of good 1.2 (disabled), rank 0"),
    ],
)
def test_processes_with_other_plugins_stop_at_the_start(
    tmp_path: Path, on_rank_1: dict[str, str], sentence: str
) -> None:
    install(tmp_path / "mine", "good", GOOD)
    install(tmp_path / "other", "good", GOOD, version="1.3")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}

    def of_rank(rank: int) -> subprocess.CompletedProcess[str]:
        environment = {**world, "RANK": str(rank), "LOCAL_RANK": str(rank), **(on_rank_1 if rank == 1 else {})}
        train = ("-m", "kontrast", "train", "simclr", "--objective", "nothing-of-the-kind", "--out", "run")
        return run(*train, sites=[Path("mine")], environment=environment, folder=tmp_path)

    with ThreadPoolExecutor() as both:
        for done in both.map(of_rank, range(2)):
            assert done.returncode == 2
            said = [line for line in done.stderr.splitlines() if "must have the same plugins" in line]
            assert said, done.stderr
            assert sentence in said[0]
            assert "rank 1 (on " in said[0]
            assert "nothing-of-the-kind" not in done.stderr  # before any name is looked up
    assert not (tmp_path / "run").exists()


def _compared(missing_on: int) -> str:
    """Return what a process is told where one rank lacks a plugin."""
    good = Plugin("good", "good", "1.2", "loaded", records=(kontrast.ObjectiveRecord("good", "good_objective:Good"),))
    with pytest.MonkeyPatch.context() as patch:
        registry = SimpleNamespace(plugins=() if kontrast.rank() == missing_on else (good,))
        patch.setattr(kontrast.same_plugins, "registry", lambda: registry)
        try:
            kontrast.same_plugins.check_same_plugins()
        except kontrast.IncompatibleError as error:
            return str(error)
    return ""


def test_a_plugin_that_one_process_lacks_is_named_on_all(gloo: GlooPool) -> None:
    for missing_on in (1, 2):
        first, *others = gloo.run(3, _compared, missing_on)
        assert f"rank {missing_on} (on " in first
        assert "has no plugin `good` of good, rank 0 (on " in first
        assert "plugin `good` of good 1.2 (loaded: objective good); install the same versions" in first
        assert set(others) == {first}
    assert set(gloo.run(3, _compared, 3)) == {""}

"""Probes that others register, through `kontrast evaluate`."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import TEST, TRAIN, make_run, save_images

import kontrast as kt
import kontrast.registry
from kontrast.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("judged"))


@pytest.fixture
def add() -> Iterator[Callable[..., None]]:
    """Registers a probe in this process, as a package would."""

    def register(name: str, function: Callable[..., Any], **about: Any) -> None:
        kt.register(kt.ProbeRecord(name, function, **about))

    yield register
    kontrast.registry._registered.clear()  # pyright: ignore[reportPrivateUsage]


def _table(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    assert main(["evaluate", *map(str, arguments)]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def _json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def _fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["evaluate", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def sizes(encoder: kt.Encoder, train: kt.Data, test: kt.Data, *, times: float = 1.0) -> dict[str, Any]:
    """Return how many samples there are.

    Args:
        times: what they are multiplied by.
    """
    assert isinstance(encoder, kt.Encoder)
    return {"seen": times * len(train), "held-out": torch.tensor(times * len(test))}


def test_scores_by_name_have_a_line_each_and_no_percent(
    run: Path, add: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    add("sizes", sizes, usual={"times": (1.0, 0.5)})
    table = _table(capsys, run, "--probe", "sizes", "--labels", "50%,100%")
    assert table[0].startswith("train ")  # no "accuracy in percent"
    assert table[1:] == [
        "probe 50% (30) 100% (60)",
        "sizes, times=1.0: seen 30.0000 60.0000",
        "sizes, times=1.0: held-out 25.0000 25.0000",
        "sizes, times=0.5: seen 15.0000 30.0000",
        "sizes, times=0.5: held-out 12.5000 12.5000",
    ]
    found = _json(capsys, run, "--probe", "sizes", "--times", "2")
    (result,) = found["results"]
    assert result["scores"] == {"seen": 2.0 * TRAIN, "held-out": 2.0 * TEST}
    assert result["options"] == {"times": 2.0}
    both = _table(capsys, run, "--probe", "sizes,linear")
    assert both[0].startswith("accuracy in percent; ")
    with pytest.raises(SystemExit):
        main(["evaluate", "--probe", "sizes", "--help"])
    assert "sizes: what they are multiplied by; 1.0,0.5 by default" in " ".join(capsys.readouterr().out.split())


def test_a_score_that_a_share_lacks_is_a_dash(
    run: Path, add: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def some(encoder: kt.Encoder, train: kt.Data, test: kt.Data, *, least: int = 10) -> dict[str, float]:
        if len(train) < least:
            raise kt.InvalidValueError(f"`least` must be at most {len(train)}, got {least}")
        return {"always": 1.0, **({"often": 2.0} if len(train) > 20 else {})}

    add("some", some, usual={"least": (10,)})
    table = _table(capsys, run, "--probe", "some", "--labels", "10%,25%,100%")
    assert table[1:] == [
        "probe 10% (6) 25% (16) 100% (60)",
        "some, least=10: always - 1.0000 1.0000",
        "some, least=10: often - - 2.0000",
        "- some, least=10 at 10%: `least` must be at most 6, got 10",
    ]


def test_a_probe_without_test_judges_the_training_part_alone(
    run: Path, tmp_path: Path, add: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def spread(encoder: None, train: kt.ArrayData) -> float:
        assert encoder is None
        assert train.inputs.shape == (len(train), 16)  # representations
        assert train.labels is not None
        assert len(train.labels) == len(train)
        return 100 * float(train.inputs.std() > 0)

    add("spread", spread, frozen=True)
    assert _table(capsys, run, "--probe", "spread")[1:] == ["probe 100% (60)", "spread 100.0"]
    assert _table(capsys, run, "--probe", "spread", "--labels", "50%")[1:] == ["probe 50% (30)", "spread 100.0"]
    alone = save_images(tmp_path / "alone.npz", train=21, test=0)
    found = _json(capsys, run, "--probe", "spread", "--train", alone, "--test", alone)
    assert (found["train"]["samples"], "test" in found) == (21, False)
    add("sizes", sizes)
    wants = _fails(capsys, run, "--probe", "sizes", "--train", alone, "--test", alone)
    assert "this data set has no test part" in wants


def test_what_a_probe_prints_is_no_part_of_the_json(
    run: Path, add: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def chatty(encoder: kt.Encoder, train: kt.Data) -> float:
        print("halfway")
        return 1.0

    add("chatty", chatty)
    assert main(["evaluate", str(run), "--probe", "chatty", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["results"][0]["scores"] == {"accuracy": 1.0}
    assert captured.err == "halfway\n"


def nothing(encoder: kt.Encoder, train: kt.Data) -> None:
    return None


def empty(encoder: kt.Encoder, train: kt.Data) -> dict[str, float]:
    return {}


def words(encoder: kt.Encoder, train: kt.Data) -> dict[str, str]:
    return {"verdict": "good"}


def broken(encoder: kt.Encoder, train: kt.Data) -> float:
    return float([][1])


def alone(encoder: kt.Encoder) -> float:
    return 1.0


def shares(encoder: kt.Encoder, train: kt.Data, *, labels: str = "all") -> float:
    return 1.0


def told(encoder: kt.Encoder, train: kt.Data, *, seed: int, depth: int) -> float:
    return float(depth)


def series(encoder: kt.Encoder, train: kt.Data) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("function", "about", "sentence"),
    [
        (nothing, {}, "probe `theirs` must return a number, or numbers by name, got None"),
        (empty, {}, "must return a number, or numbers by name, got none"),
        (words, {}, "must return a number, or numbers by name, got {'verdict': 'good'}"),
        (broken, {}, "probe `theirs` raised IndexError: list index out of range; KONTRAST_TRACEBACK=1"),
        (alone, {}, "must take (encoder, train) or (encoder, train, test), and options behind a `*`, got (encoder)"),
        (shares, {}, "must have other names than those of kontrast evaluate, got --labels; rename its parameter"),
        (told, {}, "probe `theirs` must be told `--depth`, which has no default"),
        (sizes, {"usual": {"time": (1.0,)}}, "must name options behind its `*`, ['times'], got ['time']"),
        (
            series,
            {"adapter": "timeseries"},
            "probe `theirs` is for the adapter `timeseries`, and the run's is `vision`",
        ),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_what_is_wrong_with_a_probe_is_one_sentence(
    run: Path,
    add: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    function: Callable[..., Any],
    about: dict[str, Any],
    sentence: str,
) -> None:
    add("theirs", function, **about)
    assert sentence in _fails(capsys, run, "--probe", "theirs")


def test_an_option_without_a_default_is_given_and_the_seed_is_the_commands(
    run: Path, add: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    add("told", told)
    (result,) = _json(capsys, run, "--probe", "told", "--depth", "3", "--seed", "7")["results"]
    assert (result["options"], result["scores"]) == ({"depth": 3}, {"accuracy": 3.0})
    with pytest.raises(SystemExit):
        main(["evaluate", "--probe", "told", "--help"])
    assert "told: required" in capsys.readouterr().out


def test_a_probe_whose_module_is_missing_says_what_to_install(
    run: Path, add: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    kt.register(kt.ProbeRecord("lost", "a_module_nobody_has:probe", extra="theirs[probes]"))
    assert "needs the package `a_module_nobody_has`, which is not installed; run `pip install 'theirs[probes]'`" in (
        _fails(capsys, run, "--probe", "lost")
    )

"""Parameters of every type that can be written down are options, and come back from a config file as what they were."""

import enum
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import pytest
import torch
from torch import Tensor, nn

import kontrast as kt
from kontrast import records, registry, train_command
from kontrast.cli import main
from kontrast.option_types import is_value, no_options, parameters, plain
from kontrast.plugins.objectives import NTXent
from kontrast.records import EncoderRecord, ObjectiveRecord, SamplerRecord

if TYPE_CHECKING:
    from fractions import Fraction


class Color(enum.Enum):
    """Differs from its values, so that names and values are told apart."""

    RED = "r"
    BLUE = "b"


SEEN: list[dict[str, Any]] = []


class Picky(NTXent):
    """An objective with parameters of many types.

    Args:
        temperature: as ever.
        path: a file.
        color: a colour.
        way: a way.
        shade: perhaps a colour.
        folder: perhaps a folder.
        size: two numbers.
        module: not to be written down.
        untyped: neither is this.
    """

    def __init__(  # type: ignore[no-untyped-def]
        self,
        temperature: float = 0.1,
        path: Path = Path("a/b"),
        color: Color = Color.RED,
        way: Literal["up", "down"] = "up",
        shade: Optional[Color] = None,  # noqa: UP045  # both spellings are read
        folder: Path | None = None,
        size: tuple[int, int] = (1, 2),
        module: nn.Module | None = None,
        untyped=3,
    ) -> None:
        super().__init__(temperature)
        SEEN.append({"path": path, "color": color, "way": way, "shade": shade, "folder": folder, "size": size})
        assert (module, untyped) == (None, 3)


class Needy(NTXent):
    """Cannot be made by words."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = weights


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the two registered as a plugin would."""
    added = {"picky": Picky, "needy": Needy}
    before = registry.get_record

    def found(kind: Any, name: str) -> records.Record:
        if kind is ObjectiveRecord and name in added:
            return ObjectiveRecord(name, added[name])
        record: records.Record = before(kind, name)
        return record

    monkeypatch.setattr(train_command, "get_record", found)
    SEEN.clear()
    return


WORDS = ["--objective.path=x/y", "--objective.color=BLUE", "--objective.way=down", "--objective.shade=RED"]
MORE = ["--objective.folder=z", "--objective.size=[3, 4]"]
VALUES = {
    "path": Path("x/y"),
    "color": Color.BLUE,
    "way": "down",
    "shade": Color.RED,
    "folder": Path("z"),
    "size": (3, 4),
}


@pytest.mark.usefixtures("registered")
def test_paths_choices_and_what_may_be_none_are_options_and_come_back_from_the_config_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["--epochs=1", "--batch_size=700", "--encoder.width=4", "--observers="]
    first = ["train", "simclr", "--objective=picky", *WORDS, *MORE, *settings, f"--out={tmp_path / 'first'}"]
    assert main(first) == 0
    assert SEEN[-1] == VALUES
    written = json.loads((tmp_path / "first" / "config.json").read_text())["objective"]
    shown = {"path": "x/y", "color": "BLUE", "way": "down", "shade": "RED", "folder": "z", "size": [3, 4]}
    assert written == {"name": "picky", "temperature": 0.1, **shown}
    SEEN.clear()
    assert main(["train", f"--config={tmp_path / 'first' / 'config.json'}", f"--out={tmp_path / 'again'}"]) == 0
    assert SEEN[-1] == VALUES
    assert type(SEEN[-1]["size"]) is tuple
    capsys.readouterr()


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--objective=picky", "--objective.color=GREEN"], "--objective.color` must be"),
        (["--objective=picky", "--objective.way=left"], "`--objective.way` must be one of up, down, got left"),
        (["--objective=picky", "--objective.module=x"], "no option `--objective.module`"),
        (["--objective=picky", "--objective.untyped=4"], "no option `--objective.untyped`"),
        (["--objective=needy"], "the objective `needy` needs `weights`, which cannot be written on a command line"),
        (["--sampler=guided-negatives"], "the sampler `guided-negatives` needs `guide`, which cannot be written"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert main(["train", "simclr", *arguments, f"--out={tmp_path / 'out'}"]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_a_config_file_is_held_to_the_types(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.json"
    for described, sentence in (
        ({"epochs": "many"}, "`--epochs` must be of type int, got many"),
        ({"optimizer": {"learning_rate": [1]}}, "`--optimizer.learning_rate` must be of type float, got [1]"),
    ):
        file.write_text(json.dumps({"method": {"name": "simclr"}, **described}))
        assert main(["train", f"--config={file}", f"--out={tmp_path / 'out'}"]) == 2
        assert sentence in capsys.readouterr().err


def test_the_help_shows_only_what_works(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["train", "simclr", "--help"])
    shown = capsys.readouterr().out
    assert "CONFIG" not in shown.replace("--config", "")
    options = {word.strip("[],") for word in shown.split() if word.strip("[").startswith("--")}
    assert {"--method", "--encoder.", "--objective."}.isdisjoint(options)
    assert {"--method.temperature", "--encoder.width", "--optimizer.beta1", "--objective.temperature"} <= options


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (bool, True),
        (Path, True),
        (Color, True),
        (Literal["a", 1], True),
        (Path | None, True),
        (Optional[Color], True),  # noqa: UP045
        (list[Path], True),
        (tuple[int, ...], True),
        (dict[str, float], True),
        (Sequence[Color], True),
        (Annotated[float, "seconds"], True),
        (list, True),
        ("int", True),
        (Tensor, False),
        (nn.Module | None, False),
        (list[nn.Module], False),
        (Annotated[Tensor, "x"], False),
        (Callable[[int], int], False),
        (kt.PairSampler, False),
        (Any, False),
        (torch.device, False),
    ],
)
def test_which_types_can_be_written_down(annotation: Any, expected: bool) -> None:
    assert is_value(annotation) is expected


def test_annotations_as_text_are_read_where_they_can_be() -> None:
    def readable(inner: "kt.PairSampler", size: "int" = 1) -> None: ...

    def not_readable(share: "Fraction", size: "int" = 1) -> None: ...

    assert no_options(readable) == {"inner"}
    assert no_options(not_readable) == frozenset()
    assert parameters(not_readable)["size"].annotation == "int"
    assert no_options(dict) == frozenset()


def test_values_as_a_config_file_has_them() -> None:
    value = {"a": [Path("x"), (Color.RED, None)], "b": 1.5}
    assert plain(value) == {"a": ["x", ["RED", None]], "b": 1.5}


def test_the_records_of_ours_need_nothing_that_cannot_be_written_but_where_it_is_known() -> None:
    needy = {
        (kind.kind, name)
        for kind in (SamplerRecord, ObjectiveRecord, EncoderRecord)
        for name, record in registry.get_records(kind).items()
        for entry in no_options(record.load()) - {"inner"}
        if parameters(record.load())[entry].default is parameters(record.load())[entry].empty
    }
    assert needy == {("sampler", "guided-negatives")}


def test_a_part_without_an_init_has_no_parameters() -> None:
    class Mine(kt.PairSampler):
        def pairs(self, encoded: Sequence[kt.Encoded]) -> list[kt.Pairs]:
            return []

    assert not parameters(Mine)
    assert not no_options(Mine)

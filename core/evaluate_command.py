"""`kontrast evaluate`: a run's encoder judged by probes, with all labels or few."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .adapter import Adapter
from .command_options import chosen_device, read_options, separated
from .data import ArrayData, Data, Splits
from .encoder import Encoder
from .errors import IncompatibleError, InvalidValueError, PluginError
from .evaluate import embed
from .probe import Probe, Row, named_probe
from .records import AdapterRecord, ProbeRecord
from .registry import get_record, registry
from .saved_run import SavedRun, open_run
from .subset import Subset, stratified
from .table import print_table

__all__ = ["evaluate"]

_OPTIONS: dict[str, dict[str, Any]] = {
    "--train": {"metavar": "SOURCE", "help": "data set whose train part has the labels; the run's by default"},
    "--test": {
        "metavar": "SOURCE",
        "help": "data set whose test part is judged, or its only part; the run's test part by default",
    },
    "--probe": {"metavar": "NAMES", "help": "as in kontrast list probes; by default what the domain is judged by"},
    "--labels": {"default": "100%", "help": "shares of the training labels, e.g. 1%%,10%%,100%%; of each class alike"},
    "--seed": {"type": int, "default": 0, "help": "of the subsets, and of probes that draw random numbers"},
    "--device": {"default": "auto", "help": "auto: a GPU where there is one"},
    "--json": {"action": "store_true", "help": "as one JSON object"},
}
_ABOUT = (
    "Judge a run's encoder by probes. What a probe can be told is an option here; several values, with commas between "
    "them, make a row each."
)


def evaluate(given: Sequence[str]) -> int:
    """Judge a run as the command line says, print scores (accuracies in percent), and return the exit status.

    Raises:
        UnknownNameError: for an unknown run, probe, data set or option; near names are offered.
        InvalidValueError: for a value that cannot be.
        IncompatibleError: if the run or the data cannot be judged so.
    """
    folder, names = _first_look(given)
    run = None if folder is None else open_run(folder)
    if names is None:
        names = Adapter.default_probe if run is None else run.adapter.default_probe
        homes = (
            () if run is None else (registry().distribution(get_record(AdapterRecord, run.config["adapter"]["name"])),)
        )
        names = ",".join(registry().own(ProbeRecord, name, *homes, "kontrast") for name in separated(names, "--probe"))
    probes = [named_probe(name) for name in separated(names, "--probe")]
    options = read_options("evaluate", _ABOUT, {**_options_of(probes), **_OPTIONS}, given)
    rows = [row for probe in probes for row in probe.rows({**vars(options), "seed": None})]
    fractions = [_fraction(text) for text in separated(options.labels, "--labels")]
    device = chosen_device(options.device)
    run = open_run(options.run) if run is None else run
    for probe in probes:
        probe.check_adapter(str(run.config["adapter"]["name"]))
    sources = [run.source if source is None else source for source in (options.train, options.test)]
    judged = _Judged(run.encoder.to(device), _splits(run, sources, only_part=options.test is not None), options.seed)
    frozen = any(probe.record.frozen for probe in probes)
    subsets = {fraction: None if fraction == 1 else judged.subset(fraction, frozen=frozen) for fraction in fractions}
    results = [judged.result(row, fraction, indices) for row in rows for fraction, indices in subsets.items()]
    parts = {
        part: {"source": source, "samples": len(data)}
        for part, source, data in (("train", sources[0], judged.data.train), ("test", sources[1], judged.data.held_out))
        if data is not None
    }
    if options.json:
        about = {"run": str(run.folder), "step": run.step, **parts, "seed": options.seed}
        print(json.dumps({**about, "results": results}, indent=2))
        return 0
    said = ", ".join(f"{part} {about['source']} ({about['samples']} samples)" for part, about in parts.items())
    if run.note:
        print(run.note)
    accuracies = any("accuracy" in (result["scores"] or ()) for result in results)
    print(f"accuracy in percent; {said}" if accuracies else said)
    _print(rows, results, len(subsets))
    return 0


@dataclass
class _Judged:
    """What is embedded once, for all probes and shares of the labels."""

    encoder: Encoder
    data: Splits[Data]
    seed: int

    @cached_property
    def frozen(self) -> Splits[ArrayData]:
        """The representations as data."""
        parts = [None if part is None else embed(self.encoder, part) for part in (self.data.train, self.data.held_out)]
        train, test = (None if part is None else ArrayData(part.rows, part.labels) for part in parts)
        assert train is not None
        return Splits(train, test)

    def subset(self, fraction: float, *, frozen: bool) -> Tensor:
        """Return a share of the training samples of each class; the labels are read off the representations if any."""
        data: Data = self.frozen.train if frozen else self.data.train
        labels = [data.batch(indices).labels for indices in torch.arange(len(data)).split(512)]
        known = [part for part in labels if part is not None]
        if len(known) < len(labels):
            raise IncompatibleError("a share of the labels needs labels, and the training data have none")
        return stratified(torch.cat(known), fraction, seed=self.seed)

    def result(self, row: Row, fraction: float, indices: Tensor | None) -> dict[str, Any]:
        """Return the scores of one row on a share of the labels."""
        probe = row.probe
        data: Splits[Any] = self.frozen if probe.record.frozen else self.data
        train = data.train
        if indices is not None:
            train = _chosen(self.frozen.train, indices) if probe.record.frozen else Subset(data.train, indices)
        about = {
            "probe": probe.record.name,
            "options": dict(row.options),
            "labels": fraction,
            "samples": len(train),
        }
        seed = {"seed": self.seed} if "seed" in probe.options else {}
        parts = (train, data.test) if probe.takes_test else (train,)
        encoder = None if probe.record.frozen else self.encoder
        try:
            with probe.record.blamed(), redirect_stdout(sys.stderr):  # what it prints is no part of the table or JSON
                found = probe.function(encoder, *parts, **row.options, **seed)
        except InvalidValueError as error:
            if row.asked:
                raise
            return {**about, "scores": None, "reason": str(error)}  # such as 200 neighbours of 100 samples
        return {**about, "scores": _scores(probe.record, found)}


def _chosen(data: ArrayData, indices: Tensor) -> ArrayData:
    """Return some samples as data of their own, so that a probe finds representations where it always does."""
    return ArrayData(data.inputs[indices], None if data.labels is None else data.labels[indices])


def _options_of(probes: Sequence[Probe]) -> dict[str, dict[str, Any]]:
    """Return the options that probes have.

    Raises:
        PluginError: if one has the name of an option of the command itself; the seed they share.
    """
    options: dict[str, dict[str, Any]] = {}
    for probe in probes:
        own = probe.help()
        if taken := sorted(own.keys() & {*_OPTIONS, "--help"} - {"--seed"}):
            raise PluginError(
                f"the options of {probe.record} must have other names than those of kontrast evaluate, got "
                f"{', '.join(taken)}; rename its parameter"
            )
        options.update(own)
    return options


def _scores(record: ProbeRecord, found: Any) -> dict[str, float]:
    """Return what a probe has returned as scores by name."""
    named = found if isinstance(found, Mapping) else {"accuracy": found}
    try:
        scores = {str(name): float(value) for name, value in named.items()}
    except (TypeError, ValueError) as error:
        raise PluginError(f"{record} must return a number, or numbers by name, got {found!r}") from error
    if not scores:
        raise PluginError(f"{record} must return a number, or numbers by name, got none")
    return scores


def _first_look(given: Sequence[str]) -> tuple[str | None, str | None]:
    """Return the run and the probes that are named: the probes say which further options there are.

    The run is None where there is no need to look at it: it is missing, or help is asked for.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("run", nargs="?")
    parser.add_argument("--probe")
    words, joined = iter(given), []
    for word in words:  # what an option takes is joined to it, so that it is not taken for the run
        alone = not word.startswith("--") or "=" in word or word in ("--help", "--json")
        joined.append(word if alone else f"{word}={next(words, '')}")
    found, _ = parser.parse_known_args(joined)
    return None if {"-h", "--help"} & set(given) else found.run, found.probe


def _print(rows: list[Row], results: list[dict[str, Any]], columns: int) -> None:
    """Print a line for every score of every row, with a column for every share of the labels."""
    lines: list[list[str]] = []
    for number, row in enumerate(rows):
        found = results[number * columns : (number + 1) * columns]
        scores: list[Mapping[str, float]] = [result["scores"] or {} for result in found]
        for name in dict.fromkeys(name for some in scores for name in some) or ("accuracy",):
            digits = 1 if name == "accuracy" else 4
            cells = [f"{some[name]:.{digits}f}" if name in some else "-" for some in scores]
            lines.append([str(row) if name == "accuracy" else f"{row}: {name}", *cells])
    print_table(["probe", *(f"{100 * r['labels']:g}% ({r['samples']})" for r in results[:columns])], lines)
    for number, result in enumerate(results):
        if result["scores"] is None:
            print(f"- {rows[number // columns]} at {100 * result['labels']:g}%: {result['reason']}")


def _splits(run: SavedRun, sources: list[str], *, only_part: bool) -> Splits[Data]:
    """Return the training and the test data.

    Args:
        run: whose domain loads them.
        sources: for training and test.
        only_part: judge on a source without a test part, if it is not the one with the labels.
    """
    same = Path(sources[0]).resolve() == Path(sources[1]).resolve()
    first: Splits[Data] = run.load(sources[0])
    second = first if same else run.load(sources[1])
    held_out = second.train if only_part and not same and second.held_out is None else second.held_out
    return Splits(first.train, held_out)


def _fraction(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / 100 if text.endswith("%") else 0.0
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise InvalidValueError(
            f"`--labels` must be percentages above 0% and up to 100%, got {text!r}; write e.g. 1%,10%,100%"
        )
    return share

"""`kontrast evaluate`: a run's encoder judged by probes, with all labels or few."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .command_options import chosen_device, read_options, separated
from .data import Data, Splits
from .encoder import Encoder
from .errors import IncompatibleError, InvalidValueError, UnknownNameError
from .evaluate import Representations, embed, finetune, knn, linear
from .saved_run import SavedRun, open_run
from .subset import Subset, stratified
from .table import print_table

__all__ = ["evaluate"]

_PROBES = ("finetune", "knn", "linear")
_OPTIONS: dict[str, dict[str, Any]] = {
    "--train": {"metavar": "SOURCE", "help": "data set whose train part has the labels; the run's by default"},
    "--test": {
        "metavar": "SOURCE",
        "help": "data set whose test part is judged, or its only part; the run's test part by default",
    },
    "--probe": {"default": "knn,linear", "help": f"of {', '.join(_PROBES)}; knn,linear by default"},
    "--labels": {"default": "100%", "help": "shares of the training labels, e.g. 1%%,10%%,100%%; of each class alike"},
    "--k": {"help": "neighbours; 20,200 by default, as far as there are as many samples"},
    "--epochs": {"type": int, "default": 50, "help": "of fine-tuning; 50 by default"},
    "--seed": {"type": int, "default": 0, "help": "of the subsets and of fine-tuning"},
    "--device": {"default": "auto", "help": "auto: a GPU where there is one"},
    "--json": {"action": "store_true", "help": "as one JSON object"},
}


def evaluate(given: Sequence[str]) -> int:
    """Judge a run as the command line says, print accuracies in percent, and return the exit status.

    Raises:
        UnknownNameError: for an unknown run, probe, data set or option; near names are offered.
        InvalidValueError: for a value that cannot be.
        IncompatibleError: if the run or the data cannot be judged so.
    """
    options = read_options("evaluate", "Judge a run's encoder; accuracies in percent.", _OPTIONS, given)
    probes = separated(options.probe, "--probe")
    for probe in probes:
        if probe not in _PROBES:
            raise UnknownNameError("probe", probe, _PROBES)
    fractions = [_fraction(text) for text in separated(options.labels, "--labels")]
    neighbours = [_count(text) for text in separated("20,200" if options.k is None else options.k, "--k")]
    if options.epochs < 1:
        raise InvalidValueError(f"`--epochs` must be >= 1, got {options.epochs}")
    device = chosen_device(options.device)
    run = open_run(options.run)
    sources = [run.source if source is None else source for source in (options.train, options.test)]
    train, test = _parts(run, sources, only_part=options.test is not None)
    judged = _Judged(run.encoder.to(device), train, test, options.epochs, options.seed)
    subsets = [judged.subset(fraction) for fraction in fractions]
    if options.k is not None and "knn" in probes:
        _refuse_large(neighbours, fractions, subsets)
    results: list[dict[str, Any]] = [
        {
            "probe": probe,
            **({"k": k} if k else {}),
            "labels": fraction,
            "samples": len(indices),
            "accuracy": judged.accuracy(probe, indices, k),
        }
        for probe in probes
        for k in (neighbours if probe == "knn" else [0])
        for fraction, indices in zip(fractions, subsets, strict=True)
    ]
    if options.json:
        parts = {
            part: {"source": source, "samples": len(data)}
            for part, source, data in (("train", sources[0], train), ("test", sources[1], test))
        }
        about = {"run": str(run.folder), **parts, "seed": options.seed, "finetune_epochs": options.epochs}
        print(json.dumps({**about, "results": results}, indent=2))
        return 0
    print(f"accuracy in percent; train {sources[0]} ({len(train)} samples), test {sources[1]} ({len(test)} samples)")
    _print(
        results, [f"{100 * fraction:g}% ({len(indices)})" for fraction, indices in zip(fractions, subsets, strict=True)]
    )
    return 0


@dataclass
class _Judged:
    """What is embedded once, for all probes and shares of the labels."""

    encoder: Encoder
    train: Data
    test: Data
    epochs: int
    seed: int

    def __post_init__(self) -> None:
        self.bank, self.queries = embed(self.encoder, self.train), embed(self.encoder, self.test)

    def subset(self, fraction: float) -> Tensor:
        if self.bank.labels is None:
            raise IncompatibleError(
                "evaluation needs labels in training and test data, and the training data have none"
            )
        return stratified(self.bank.labels, fraction, seed=self.seed)

    def accuracy(self, probe: str, indices: Tensor, k: int) -> float | None:
        """Return the test accuracy with these labels; None where there are fewer than k."""
        if probe == "finetune":
            chosen = Subset(self.train, indices)
            return finetune(self.encoder, chosen, self.test, epochs=self.epochs, seed=self.seed)
        if k > len(indices):
            return None
        labels = None if self.bank.labels is None else self.bank.labels[indices]
        pair = Representations(self.bank.rows[indices], self.bank.ids[indices], labels), self.queries
        return knn(pair, k=k) if probe == "knn" else linear(pair)


def _print(results: list[dict[str, Any]], columns: list[str]) -> None:
    rows: dict[str, list[str]] = {}
    for result in results:
        name = f"knn, k={result['k']}" if "k" in result else result["probe"]
        rows.setdefault(name, []).append("-" if result["accuracy"] is None else f"{result['accuracy']:.1f}")
    print_table(["probe", *columns], [[name, *row] for name, row in rows.items()])
    if any("-" in row for row in rows.values()):
        print("- where there are fewer labelled samples than k")


def _refuse_large(neighbours: list[int], fractions: list[float], subsets: list[Tensor]) -> None:
    for k in neighbours:
        for fraction, indices in zip(fractions, subsets, strict=True):
            if k > len(indices):
                raise InvalidValueError(
                    f"`--k` must be at most the number of labelled samples, got {k}, and {100 * fraction:g}% of "
                    f"the labels are {len(indices)} samples; take a smaller k or more labels"
                )


def _parts(run: SavedRun, sources: list[str], *, only_part: bool) -> tuple[Data, Data]:
    """Return the training and the test data.

    Args:
        run: whose domain loads them.
        sources: for training and test.
        only_part: judge on a source without a test part, if it is not the one with the labels.
    """
    same = Path(sources[0]).resolve() == Path(sources[1]).resolve()
    splits: list[Splits[Data]] = [run.load(sources[0])]
    splits.append(splits[0] if same else run.load(sources[1]))
    if only_part and not same and splits[1].held_out is None:
        return splits[0].train, splits[1].train
    return splits[0].train, splits[1].test


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


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise InvalidValueError(f"`--k` must be whole numbers >= 1, got {text!r}; write e.g. 20,200")
    return int(text)

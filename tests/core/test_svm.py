import math
from typing import Any

import pytest
import torch
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import SVC

import kontrast as kt


def blobs(samples: int = 120, seed: int = 0) -> kt.evaluate.Representations:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % 3
    rows = torch.randn(samples, 5, generator=generator) + 1.5 * torch.nn.functional.one_hot(labels, 5)
    return kt.evaluate.Representations(rows, torch.arange(samples), labels)


def test_it_is_the_plain_protocol() -> None:
    whole = blobs()
    assert whole.labels is not None
    rows, labels = whole.rows.double().numpy(), whole.labels.numpy()
    expected = []
    for train, test in StratifiedKFold(10, shuffle=True, random_state=3).split(rows, labels):
        costs = {"C": [1e-3, 1e-2, 0.1, 1, 10, 100, 1000]}
        machine: Any = SVC().set_params(gamma=0.2)
        search: Any = GridSearchCV(machine, costs, cv=5).fit(rows[train], labels[train])
        expected.append(100 * search.score(rows[test], labels[test]))
    found = kt.evaluate.svm(whole, gamma=0.2, seed=3)
    assert found.folds == pytest.approx(expected)
    assert float(found) == pytest.approx(math.fsum(expected) / 10)
    assert 40 < float(found) < 90


def test_an_encoder_and_data_do_as_well_and_several_processes_change_nothing() -> None:
    whole = blobs()
    data = kt.ArrayData(whole.rows, whole.labels)
    assert kt.evaluate.svm(torch.nn.Identity(), data, folds=3) == kt.evaluate.svm(whole, folds=3, jobs=2)


def test_labels_without_meaning_are_told_by_chance() -> None:
    whole = blobs(300)
    shuffled = torch.randperm(300, generator=torch.Generator().manual_seed(1)) % 3
    found = kt.evaluate.svm(kt.evaluate.Representations(whole.rows, whole.ids, shuffled), folds=5)
    assert float(found) == pytest.approx(33.3, abs=9)


def test_bad_input_is_named() -> None:
    whole = blobs(12)
    with pytest.raises(kt.IncompatibleError, match=r"at least 10 samples, one per fold, got \[4, 4, 4\] of classes"):
        kt.evaluate.svm(whole)
    with pytest.raises(kt.IncompatibleError, match="needs labels"):
        kt.evaluate.svm(kt.evaluate.Representations(whole.rows, whole.ids, None))
    with pytest.raises(kt.InvalidValueError, match="give an encoder with data"):
        kt.evaluate.svm(torch.nn.Identity())
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"folds": 1}, "folds"),
        ({"costs": ()}, "costs"),
        ({"gamma": 0.0}, "gamma"),
    ]
    for options, sentence in wrong:
        with pytest.raises(kt.InvalidValueError, match=sentence):
            kt.evaluate.svm(whole, **options)

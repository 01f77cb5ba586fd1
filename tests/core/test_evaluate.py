import math
import re
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread
from torch import Tensor, nn

import kontrast as kt
from kontrast.evaluate import Representations, embed, knn, linear


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def classes(count: int, of: int, *, seed: int) -> Tensor:
    return torch.randint(of, (count,), generator=torch.Generator().manual_seed(seed))


def represented(rows: Tensor, labels: Tensor | None) -> Representations:
    return Representations(rows, torch.arange(len(rows)), labels)


def knn_in_loops(train: Representations, test: Representations, k: int, temperature: float) -> float:
    """Weighted votes of the k nearest, from the definition, in Python's float64."""
    assert train.labels is not None
    assert test.labels is not None

    def cosine(x: list[float], y: list[float]) -> float:
        norms = math.sqrt(sum(a * a for a in x)) * math.sqrt(sum(b * b for b in y))
        return sum(a * b for a, b in zip(x, y, strict=True)) / norms if norms else 0.0

    right = 0
    for row, label in zip(test.rows.tolist(), test.labels.tolist(), strict=True):
        pairs = zip(train.rows.tolist(), train.labels.tolist(), strict=True)
        scores = [(cosine(row, other), vote) for other, vote in pairs]
        votes: dict[int, float] = {}
        for score, vote in sorted(scores, reverse=True)[:k]:
            votes[vote] = votes.get(vote, 0.0) + math.exp(score / temperature)
        right += max(votes, key=lambda vote: votes[vote]) == label
    return 100 * right / len(test.rows)


TRAIN = represented(random(60, 4, seed=0), classes(60, 4, seed=1) * 3)
TEST = represented(random(40, 4, seed=2) * 5, classes(40, 4, seed=3) * 3)


@pytest.mark.parametrize("k", [1, 2, 7, 20, 60])
@pytest.mark.parametrize("temperature", [0.02, 0.07, 1.0, 100.0])
def test_knn_is_the_vote_of_its_definition(k: int, temperature: float) -> None:
    expected = knn_in_loops(TRAIN, TEST, k, temperature)
    assert 0 < expected < 100
    assert knn((TRAIN, TEST), k=k, temperature=temperature) == pytest.approx(expected)


def test_knn_votes_at_any_temperature() -> None:
    # No neighbour is near, so every vote is tiny: exp((cosine - 1) / temperature) underflows, their ratios do not.
    far = represented(torch.eye(3) + torch.tensor([[0.0, 0.0, 0.9], [0.0, 0.0, 0.8], [0.0, 0.0, 0.0]]), torch.arange(3))
    query = represented(torch.tensor([[-0.1, 0.3, 0.0]]), torch.tensor([1]))
    assert knn_in_loops(far, query, 3, 0.002) == 100
    assert knn((far, query), k=3, temperature=0.002) == 100


@pytest.mark.parametrize("chunk", [1, 7, 40, 1000])
def test_knn_does_not_depend_on_its_chunks(chunk: int) -> None:
    assert knn((TRAIN, TEST), k=7, chunk=chunk) == knn((TRAIN, TEST), k=7)


def test_knn_of_oneself_is_right_and_zero_rows_are_harmless() -> None:
    assert knn((TRAIN, TRAIN), k=1) == 100
    zero = represented(torch.zeros(2, 4), torch.tensor([0, 3]))
    assert knn((TRAIN, zero), k=60) in (0, 50, 100)


@pytest.mark.parametrize("k", [0, -1, 61])
def test_k_is_at_most_the_number_of_samples(k: int) -> None:
    with pytest.raises(kt.InvalidValueError, match=rf"`k` must be in 1\.\.60, the number of training samples, got {k}"):
        knn((TRAIN, TEST), k=k)


def test_labels_and_data_must_be_there() -> None:
    bare = represented(TRAIN.rows, None)
    for pair in ((bare, TEST), (TRAIN, bare)):
        with pytest.raises(kt.IncompatibleError, match="evaluation needs labels in training and test data"):
            knn(pair)
        with pytest.raises(kt.IncompatibleError, match="evaluation needs labels in training and test data"):
            linear(pair)
    with pytest.raises(kt.InvalidValueError, match="give an encoder with train and test data, or"):
        knn(nn.Identity(), kt.ArrayData(TRAIN.rows, TRAIN.labels))


class Doubled(nn.Module):
    """Twice the inputs, and only in evaluation mode; fails on a row that holds 13."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Identity(), nn.Dropout(0.5))
        self.sizes: list[int] = []

    def forward(self, inputs: Tensor) -> Tensor:
        assert not any(part.training for part in self.modules())
        assert not torch.is_grad_enabled()
        if (inputs == 13).any():
            raise RuntimeError("thirteen")
        self.sizes.append(len(inputs))
        return 2 * inputs


def test_embed_keeps_the_order_of_the_samples() -> None:
    data, encoder = kt.ArrayData(random(10, 3, seed=0), torch.arange(10)), Doubled()
    found = embed(encoder, data, batch_size=4)
    assert encoder.sizes == [4, 4, 2]
    assert torch.equal(found.rows, 2 * data.inputs)
    assert found.labels is not None
    assert found.ids.tolist() == found.labels.tolist() == list(range(10))
    assert embed(encoder, kt.ArrayData(data.inputs)).labels is None
    # Without an encoder the inputs speak for themselves, as flat float32 rows.
    images = kt.ArrayData(torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2))
    assert torch.equal(embed(None, images).rows, torch.arange(24.0).reshape(2, 12))
    assert embed(nn.Identity().double(), kt.ArrayData(random(2, 3, seed=0).double())).rows.dtype == torch.float32


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    "training", [[True, True, True, True], [False] * 4, [True, True, True, False], [False, True, True, True]]
)
def test_embed_leaves_the_mode_as_it_was(training: list[bool], fails: bool) -> None:
    encoder, data = Doubled(), kt.ArrayData(torch.full((3, 2), 13.0 if fails else 1.0))
    # A part may be in another mode than the whole: a frozen batch norm, say.
    for part, mode in zip(encoder.modules(), training, strict=True):
        part.training = mode
    if fails:
        with pytest.raises(RuntimeError, match="thirteen"):
            embed(encoder, data)
    else:
        embed(encoder, data)
    assert [part.training for part in encoder.modules()] == training


def separable(count: int, *, seed: int) -> kt.ArrayData:
    labels = classes(count, 3, seed=seed)
    return kt.ArrayData(10 * torch.eye(3)[labels] + random(count, 3, seed=seed), labels)


@pytest.mark.parametrize("evaluation", [linear, knn])
def test_separable_classes_are_separated(evaluation: type) -> None:
    train, test = separable(90, seed=0), separable(60, seed=1)
    assert evaluation(None, train, test) == 100
    assert evaluation(nn.Identity(), train, test) == 100
    shuffled = kt.ArrayData(test.inputs, (test.labels + 1) % 3 if test.labels is not None else None)
    assert evaluation(None, train, shuffled) == 0


def test_the_linear_probe_standardises_and_regularises() -> None:
    # The class is in a column a million times smaller than a noisy one.
    labels = torch.arange(200) % 2
    rows = torch.stack([1e3 * random(200, seed=0), 1e-3 * (2.0 * labels - 1)], 1)
    halves = represented(rows[:100], labels[:100]), represented(rows[100:], labels[100:])
    assert linear(halves) == 100
    wide = represented(random(60, 50, seed=4), TRAIN.labels), represented(random(40, 50, seed=5), TEST.labels)
    assert linear(wide, regularization=100.0) != linear(wide, regularization=1e-4)


def spread_of_colours(picture: Path) -> int:
    return len({tuple(pixel) for pixel in imread(picture).reshape(-1, 4).tolist()})


@pytest.mark.parametrize("panels", [1, 3])
def test_a_picture_shows_each_panel(tmp_path: Path, panels: int) -> None:
    labels = torch.arange(30) % 3
    rows = {f"panel {i}": random(30, 5, seed=i) + 4 * labels[:, None] for i in range(panels)}
    path = kt.embedding_picture(rows, labels, tmp_path / "picture.png")
    height, width, _ = imread(path).shape
    assert path == tmp_path / "picture.png"
    assert width / panels / height == pytest.approx(4.2 / 4.4, abs=0.02)
    # Not a blank page: three colours of points and their edges.
    assert spread_of_colours(path) > 20
    assert str(kt.embedding_picture(rows, labels, str(tmp_path / "picture.svg"))).endswith(".svg")
    assert "<!-- panel 0 -->" in (tmp_path / "picture.svg").read_text()


def test_a_picture_shows_at_most_so_many_samples_and_the_same_ones_again(tmp_path: Path) -> None:
    rows, labels = {"one": random(30, 5, seed=0)}, torch.arange(30) % 3
    points = []
    for name, limit in (("all", 100), ("some", 12)):
        text = kt.embedding_picture(rows, labels, tmp_path / f"{name}.svg", limit=limit).read_text()
        collection = text[text.index('id="PathCollection_1"') : text.index('id="patch_3"')]
        points.append(collection.count("<use "))
    assert points == [30, 12]
    first, second = (kt.embedding_picture(rows, labels, tmp_path / f"{i}.png", limit=12).read_bytes() for i in (0, 1))
    assert first == second


def test_the_smallest_picture(tmp_path: Path) -> None:
    thin = random(4, 1, seed=0)
    assert kt.embedding_picture({"thin": thin}, torch.arange(4), tmp_path / "thin.png").is_file()
    with pytest.raises(kt.InvalidValueError, match="at least 4 samples, got 3"):
        kt.embedding_picture({"thin": thin[:3]}, torch.arange(3), tmp_path / "thin.png")


@pytest.mark.parametrize("count", [2, 10, 20])
def test_a_pictures_legend_names_classes_alone(tmp_path: Path, count: int) -> None:
    labels = torch.arange(2 * count) % count
    path = kt.embedding_picture({"one": random(2 * count, 3, seed=0)}, labels, tmp_path / "legend.svg")
    # matplotlib draws text as shapes and leaves each string in a comment, a number perhaps as $\mathdefault{1}$.
    comments = re.findall(r"<!-- (.*?) -->", path.read_text())
    numbers = {float(found[0]) for text in comments if (found := re.findall(r"\d+(?:\.\d+)?", text))}
    assert numbers
    assert numbers <= set(range(count)), "a class that does not exist"
    if count <= 10:
        assert numbers == set(range(count))


@pytest.mark.parametrize(("rows", "found"), [(torch.ones(4, 2), r"\[4, 2\]"), (torch.ones(5), r"\[5\]")])
def test_a_picture_refuses_a_panel_of_another_length(tmp_path: Path, rows: Tensor, found: str) -> None:
    with pytest.raises(kt.InvalidValueError, match=rf"panel `odd` must be \[5, D\], got {found}"):
        kt.embedding_picture({"fine": torch.eye(5), "odd": rows}, torch.arange(5), tmp_path / "x.png")
    assert not list(tmp_path.iterdir())
    with pytest.raises(kt.InvalidValueError, match="at least one panel"):
        kt.embedding_picture({}, torch.arange(5), tmp_path / "x.png")

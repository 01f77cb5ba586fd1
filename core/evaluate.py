"""How good representations are: k nearest neighbours, a linear probe and an SVM on frozen ones, and fine-tuning.

Shapes: N training samples, M test samples, D representation size.
"""

import math
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .data import Data
from .errors import IncompatibleError, InvalidValueError
from .optim import SGD, learning_rate_factor
from .optional import optional_import
from .representations import Representations, embed
from .similarity import normalize
from .svm import CrossValidated, svm

__all__ = ["CrossValidated", "Representations", "embed", "finetune", "knn", "linear", "svm"]


def knn(
    encoder: nn.Module | tuple[Representations, Representations] | None,
    train: Data | None = None,
    test: Data | None = None,
    *,
    k: int = 20,
    temperature: float = 0.07,
    chunk: int = 1024,
) -> float:
    """Return the accuracy of the weighted vote of the k nearest training samples by cosine, in percent.

    Args:
        encoder: what embeds the data (None: the inputs themselves), or (training, test) representations.
        train: labelled samples that vote.
        test: labelled samples that are judged.
        k: neighbours, usually 20 or 200; at most the number of training samples.
        temperature: a neighbour's vote weighs exp(cosine / temperature).
        chunk: test samples per matrix product; memory is chunk x N.

    Raises:
        InvalidValueError: if `k` or `temperature` is out of range, or a label is negative.
        IncompatibleError: if labels are missing.

    Source:
        Wu et al. 2018, arXiv:1805.01978, section 3.4.
    """
    if not temperature > 0:
        raise InvalidValueError(f"`temperature` must be > 0, got {temperature!r}")
    bank, queries, bank_labels, query_labels = _labelled(encoder, train, test)
    if not 1 <= k <= len(bank):
        raise InvalidValueError(f"`k` must be in 1..{len(bank)}, the number of training samples, got {k!r}")
    classes = int(max(bank_labels.max(), query_labels.max())) + 1
    bank = normalize(bank)
    right = 0
    for rows, labels in zip(queries.split(chunk), query_labels.split(chunk), strict=True):
        near = (normalize(rows) @ bank.T).topk(k, dim=1)
        weights = ((near.values - near.values[:, :1]) / temperature).exp()  # relative to the nearest: none underflows
        votes = torch.zeros(len(rows), classes).scatter_add_(1, bank_labels[near.indices], weights)
        right += int((votes.argmax(1) == labels).sum())
    return 100 * right / len(queries)


def linear(
    encoder: nn.Module | tuple[Representations, Representations] | None,
    train: Data | None = None,
    test: Data | None = None,
    *,
    regularization: float = 1.0,
    iterations: int = 1000,
) -> float:
    """Return the test accuracy of a logistic regression on frozen, standardised representations, in percent.

    Args:
        encoder: what embeds the data (None: the inputs themselves), or (training, test) representations.
        train: labelled samples it is fitted to.
        test: labelled samples that are judged.
        regularization: the inverse strength C of the L2 penalty; fixed, not chosen on the test data.
        iterations: at most, of L-BFGS.

    Raises:
        MissingExtraError: if scikit-learn is not installed.
        IncompatibleError: if labels are missing, or all training labels are of one class.
    """
    linear_model, pipeline, preprocessing = (
        optional_import(f"sklearn.{part}", extra="kontrast[eval]", purpose="the linear probe")
        for part in ("linear_model", "pipeline", "preprocessing")
    )
    bank, queries, bank_labels, query_labels = _labelled(encoder, train, test)
    _check_classes(bank_labels)
    probe = pipeline.make_pipeline(
        preprocessing.StandardScaler(), linear_model.LogisticRegression(C=regularization, max_iter=iterations)
    )
    probe.fit(bank.numpy(), bank_labels.numpy())
    return 100 * float(probe.score(queries.numpy(), query_labels.numpy()))


def finetune(
    encoder: nn.Module,
    train: Data,
    test: Data,
    *,
    epochs: int = 50,
    batch_size: int = 64,
    learning_rate: float = 0.01,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> float:
    """Return the test accuracy of a copy of the encoder trained with labels, a linear layer on top, in percent.

    The linear layer reads representations through a batch norm without parameters, so that one learning rate fits
    any encoder. Cross-entropy, SGD with momentum 0.9, no augmentation; the learning rate falls to 0 by a half cosine,
    and the last epoch is judged, not the best. Parts that were frozen train too. On a CPU a seed fixes the outcome.

    Args:
        encoder: inputs -> [B, D], on the device that is used; it stays as it is.
        train: labelled samples it is trained on, at least two.
        test: labelled samples that are judged.
        epochs: passes over the training samples.
        batch_size: samples per step at most, >= 3; batches are of equal size, so that none holds a single sample.
        learning_rate: of the first step.
        weight_decay: of matrices.
        seed: of the linear layer's weights, the order of the samples and dropout.

    Raises:
        InvalidValueError: if an option is out of range, or a label is negative.
        IncompatibleError: if labels are missing, or all training labels are of one class.

    Source:
        Chen et al. 2020, arXiv:2002.05709, appendix B.5. Differs from it: no augmentation, since not every domain has
        one that keeps the label; no Nesterov momentum; the batch norm; a small batch, for small data sets.
    """
    for name, value, least in (("epochs", epochs, 1), ("batch_size", batch_size, 3)):
        if value < least:
            raise InvalidValueError(f"`{name}` must be >= {least}, got {value!r}")
    settings = SGD(learning_rate, weight_decay=weight_decay)
    bank, _, labels, test_labels = _labelled(encoder, train, test)  # what is wrong shows before it takes long
    _check_classes(labels)
    device = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        head = nn.Linear(bank.shape[1], int(labels.max()) + 1).to(device)
        tuned = (
            nn.Sequential(deepcopy(encoder), nn.BatchNorm1d(bank.shape[1], affine=False), head)
            .to(device)
            .requires_grad_(True)
        )
        optimizer = settings.build(tuned)
        steps = math.ceil(len(train) / batch_size)
        tuned.train()
        for epoch in range(epochs):
            for step, indices in enumerate(torch.randperm(len(train)).tensor_split(steps)):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate * learning_rate_factor(epoch * steps + step, epochs * steps, 0)
                loss = F.cross_entropy(tuned(train.batch(indices).to(device).inputs), labels[indices].to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    scores = embed(tuned, test).rows
    return 100 * float((scores.argmax(1) == test_labels).double().mean())


def _labelled(
    encoder: nn.Module | tuple[Representations, Representations] | None, train: Data | None, test: Data | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if isinstance(encoder, tuple):
        bank, queries = encoder
    elif train is None or test is None:
        raise InvalidValueError("give an encoder with train and test data, or (training, test) representations")
    else:
        bank, queries = embed(encoder, train), embed(encoder, test)
    if bank.labels is None or queries.labels is None:
        raise IncompatibleError("evaluation needs labels in training and test data, and one of them has none")
    lowest = min(int(bank.labels.min()), int(queries.labels.min()))
    if lowest < 0:
        raise InvalidValueError(f"labels must be >= 0 for evaluation, got {lowest}; leave samples without a label out")
    return bank.rows, queries.rows, bank.labels, queries.labels


def _check_classes(labels: Tensor) -> None:
    if (labels == labels[0]).all():
        raise IncompatibleError(
            f"a classifier needs at least two classes in the training data, got {len(labels)} samples of one class; "
            "take more labels"
        )

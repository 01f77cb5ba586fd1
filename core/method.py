"""A method: towers, a sampler and an objective, composed. Its file in `plugins/` reads like the paper.

Shapes: M rows of a view, D embedding size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .distributed import rank
from .encoder import Encoder, as_encoder, evaluating
from .errors import IncompatibleError, InvalidValueError, UnknownNameError
from .loss import Loss
from .objective import Objective
from .pairs import Pairs
from .sampler import PairSampler
from .similarity import Cosine, Similarity
from .target import Average, Momentum, StopGradient
from .values import Encoded, View

__all__ = ["Method", "Tower"]


class Tower(nn.Module):
    """An encoder and the projection heads on its pooled rows and on the elements inside them."""

    def __init__(self, encoder: Encoder, projector: nn.Module | None, dense_projector: nn.Module | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = projector
        self.dense_projector = dense_projector

    def forward(self, view: View, copies: Tensor) -> Encoded:
        """Return the view's projections."""
        encoded = self.encoder.encode(view, copies)
        if self.projector is not None and encoded.rows is not None:
            encoded = replace(encoded, rows=self.projector(encoded.rows))
        if self.dense_projector is None:
            return encoded
        if encoded.dense is None:
            raise IncompatibleError(
                f"`dense_projector` goes on elements, and {type(self.encoder).__name__} gives pooled rows alone; "
                "take an encoder whose `encode` fills `dense`"
            )
        return replace(encoded, dense=self.dense_projector(encoded.dense))


class Method(nn.Module):
    """Views -> loss, by towers, a sampler and an objective.

    Args:
        encoder: a module that returns [B, D], or several by name for views that differ (`View.tower`).
        projector: the head whose output the objective sees; by the same names where there are several encoders.
        dense_projector: the head on the embedding of each element inside a sample, where the sampler compares those.
        predictor: a further head on the anchors alone (BYOL, SimSiam).
        target: what embeds the candidates: `Momentum`, `StopGradient`, or None: the towers themselves.
        sampler: who is compared with whom.
        objective: what the comparison is worth; several by the names of the Pairs they are for.
        similarity: shared by sampler, objective and metrics; cosine by default.
        average: what comes out of training is the encoder with the mean of its weights after every step, not the last.
        joint_forward: encode the views of one tower in one forward pass, so that batch norms see them together
            (SimCLR's code does; BYOL's does not). Inputs must be tensors or mappings of them.

    Raises:
        IncompatibleError: if objective and sampler do not go together.
        InvalidValueError: if a part is not of its kind.
    """

    def __init__(
        self,
        encoder: nn.Module | Mapping[str, nn.Module],
        *,
        sampler: PairSampler,
        objective: Objective | Mapping[str, Objective],
        projector: nn.Module | Mapping[str, nn.Module] | None = None,
        dense_projector: nn.Module | Mapping[str, nn.Module] | None = None,
        predictor: nn.Module | Mapping[str, nn.Module] | None = None,
        target: Momentum | StopGradient | None = None,
        similarity: Similarity | None = None,
        average: bool = False,
        joint_forward: bool = False,
    ) -> None:
        super().__init__()
        _check_parts(sampler=sampler, target=target, similarity=similarity)
        encoders = _by_name(encoder)
        objectives = _by_name(objective)
        _check_names(encoder=encoders, objective=objectives)
        projectors, dense_projectors, predictors = map(_by_name, (projector, dense_projector, predictor))
        for heads in (projectors, dense_projectors, predictors):
            for head in heads.values():
                if not isinstance(head, nn.Module):
                    raise InvalidValueError(
                        f"a projector or predictor must be a torch.nn.Module, got {head!r}; see kontrast.mlp"
                    )
            if heads and heads.keys() != encoders.keys():
                raise InvalidValueError(
                    f"heads must go by the names of the encoders, {sorted(encoders)}, got {sorted(heads)}"
                )
        for part in objectives.values():
            if not isinstance(part, Objective):
                raise InvalidValueError(f"`objective` must be a kontrast.Objective, got {type(part).__name__}")
            part.check(sampler, similarity)
        _check_bound(sampler, similarity)
        self.towers = nn.ModuleDict(
            {
                _slot(name): Tower(as_encoder(module), projectors.get(name), dense_projectors.get(name))
                for name, module in encoders.items()
            }
        )
        self.predictors = nn.ModuleDict({_slot(name): head for name, head in predictors.items()})
        self.target = target
        self.target_towers = Momentum.copy_of(self.towers) if isinstance(target, Momentum) else None
        self.average = Average(self.towers) if average else None
        self.sampler = sampler
        self.objectives = nn.ModuleDict({_slot(name): part for name, part in objectives.items()})
        self.similarity = Cosine() if similarity is None else similarity
        self.joint_forward = joint_forward

    def extra_repr(self) -> str:
        """Show what is no module."""
        return f"target={self.target!r}, joint_forward={self.joint_forward}, average={self.average is not None}"

    def exchange(self, *, sampler: PairSampler | None = None, objective: Objective | None = None) -> None:
        """Put another sampler or objective in the place of the method's own.

        Raises:
            IncompatibleError: if the two then do not go together.
        """
        self.sampler = self.sampler if sampler is None else sampler
        if objective is not None:
            self.objectives = nn.ModuleDict({_slot(""): objective})
        for part in self.objectives.values():
            if isinstance(part, Objective):
                part.check(self.sampler, self.similarity)
        _check_bound(self.sampler, self.similarity)

    @property
    def min_batch(self) -> int:
        """The smallest batch, of all ranks, that sampler and objectives are defined for."""
        needs = [part.needs.min_batch for part in self.objectives.values() if isinstance(part, Objective)]
        return max(self.sampler.gives.min_batch, *needs)

    @property
    def encoders(self) -> dict[str, Encoder]:
        """The encoders alone, by the names they were given; a single one is called `default`."""
        return {name: tower.encoder for name, tower in self._trained.items() if isinstance(tower, Tower)}

    @property
    def _trained(self) -> nn.ModuleDict:
        """The towers that come out of training."""
        mean = None if self.average is None else self.average.module
        return mean if isinstance(mean, nn.ModuleDict) else self.towers

    @property
    def encoder(self) -> Encoder:
        """The encoder alone: what a trained method is used for.

        Raises:
            IncompatibleError: if there are several.
        """
        if len(self.towers) > 1:
            raise IncompatibleError(f"this method has several encoders; take one of `encoders`: {sorted(self.towers)}")
        return next(iter(self.encoders.values()))

    @torch.no_grad()
    def represent(self, inputs: Any, tower: str = "") -> Tensor:
        """Return the representations [B, D] of inputs: the encoder alone, in evaluation mode, without gradient."""
        encoder: Encoder = self._tower(self._trained, tower).encoder
        with evaluating(encoder):
            result: Tensor = encoder(inputs)
        return result

    def forward(self, views: Sequence[View]) -> tuple[Loss, list[Encoded]]:
        """Encode, sample, score; return the loss and the encoded views, which `after_step` wants detached."""
        encoded = self.encode(views)
        return self.score(encoded), encoded

    def score(self, encoded: Sequence[Encoded]) -> Loss:
        """Sample and score encoded views: the part of a step that sees the whole batch."""
        losses = []
        sampled = self.sampler.pairs([replace(view, similarity=self.similarity) for view in encoded])
        if not isinstance(sampled, list) or not all(isinstance(pairs, Pairs) for pairs in sampled):
            raise InvalidValueError(
                f"`pairs` of {type(self.sampler).__name__} must return a list of kontrast.Pairs, "
                f"got {type(sampled).__name__}"
            )
        for pairs in sampled:
            objective = self._objective(pairs)
            loss = objective(replace(pairs, similarity=self.similarity))
            if not isinstance(loss, Loss):
                raise InvalidValueError(
                    f"{type(objective).__name__} must return a kontrast.Loss, got {type(loss).__name__}; "
                    "see Loss.over_rows"
                )
            losses.append(loss.scaled(pairs.weight, prefix=f"{pairs.name}/" if pairs.name else ""))
        auxiliary = [view.auxiliary for view in encoded if view.auxiliary is not None]
        for loss in auxiliary:
            if not isinstance(loss, Loss):
                raise InvalidValueError(
                    f"`auxiliary` of an encoding must be a kontrast.Loss, got {type(loss).__name__}; see Loss.over_rows"
                )
        return Loss.sum_of([*losses, Loss.sum_of(auxiliary).merged()])

    def encode(self, views: Sequence[View], *, with_target: bool = True) -> list[Encoded]:
        """Return each view's anchors, with the stream `target` where its candidates are something else.

        Only the views that the sampler reads are encoded, anchors by the towers and candidates by the target.

        Args:
            views: one batch's.
            with_target: False leaves out a momentum target's encodings (which have no gradient to repeat).
        """
        copies = _copies(views)
        anchors, candidates = self.sampler.reads(len(views))
        last = max((*anchors, *candidates), default=0)
        if last >= len(views):
            raise IncompatibleError(
                f"the sampler {type(self.sampler).__name__} reads view {last}, counted from 0, and the augmenter made "
                f"{len(views)}; take an augmenter that goes with this method (kontrast train: --augmenter, or the "
                "--adapter of its domain)"
            )
        momentum = self.target_towers is not None
        online = anchors if momentum else tuple(sorted({*anchors, *candidates}))
        projected = self._through(self.towers, views, copies, online)
        targets: dict[int, Encoded] = {}
        if self.target_towers is not None and with_target:
            with torch.no_grad():
                targets = self._through(self.target_towers, views, copies, candidates)
        elif isinstance(self.target, StopGradient):
            targets = {i: projected[i].detach() for i in candidates}
        elif self.predictors:
            targets = {i: projected[i] for i in candidates}
        encoded = []
        for i, view in enumerate(views):
            auxiliary = projected[i].auxiliary if i in projected else None
            anchor = Encoded(None, view.ids, copies[i], view.labels, view.groups, auxiliary=auxiliary)
            if i in projected and (i in anchors or not (targets or momentum)):
                anchor = self._predicted(view, projected[i])
            streams = {**anchor.streams, "target": targets[i]} if i in targets else anchor.streams
            encoded.append(replace(anchor, streams=streams))
        return encoded

    def after_step(self, encoded: Sequence[Encoded], progress: float) -> None:
        """Move what moves after the optimizer: the momentum copy, and every module that has `commit`.

        Args:
            encoded: what `forward` returned, detached.
            progress: the share of training done, in [0, 1].
        """
        if isinstance(self.target, Momentum) and self.target_towers is not None:
            self.target.update(self.target_towers, self.towers, progress)
        if self.average is not None:
            self.average.update(self.towers)
        for module in self.modules():
            commit = getattr(type(module), "commit", None)  # of a module itself it is slow to ask for what it lacks
            if callable(commit):
                commit(module, encoded)

    def _through(
        self, towers: nn.ModuleDict, views: Sequence[View], copies: Sequence[Tensor], which: Sequence[int]
    ) -> dict[int, Encoded]:
        """Return the projections of some views by index, jointly per tower if so asked."""
        if not self.joint_forward:
            return {i: self._tower(towers, views[i].tower)(views[i], copies[i]) for i in which}
        encoded: dict[int, Encoded] = {}
        for tower in sorted({views[i].tower for i in which}):
            together = [i for i in which if views[i].tower == tower]
            joint = View(
                _concatenate([views[i].inputs for i in together]),
                torch.cat([views[i].ids for i in together]),
                tower=tower,
            )
            projected = self._tower(towers, tower)(joint, torch.cat([copies[i] for i in together]))
            if projected.owner is not None:
                raise IncompatibleError(
                    "joint_forward takes encoders whose rows stand one below the other, and this one lays elements "
                    "flat; use joint_forward=False"
                )
            cut: dict[str, Sequence[Tensor | None]] = {}
            for name in ("rows", "dense", "valid"):
                joined: Tensor | None = getattr(projected, name)
                lengths = [len(views[i].ids) for i in together]
                cut[name] = [None] * len(together) if joined is None else joined.split(lengths)
            for at, i in enumerate(together):
                rows, dense, valid = (values[at] for values in cut.values())
                plain = Encoded(rows, views[i].ids, copies[i], views[i].labels, views[i].groups)
                auxiliary = None if at else projected.auxiliary  # of all the views together
                encoded[i] = replace(plain, dense=dense, valid=valid, coords=views[i].coords, auxiliary=auxiliary)
        return encoded

    def _predicted(self, view: View, projected: Encoded) -> Encoded:
        if not self.predictors or projected.rows is None:
            return projected
        return replace(projected, rows=self._tower(self.predictors, view.tower)(projected.rows))

    def _tower(self, modules: nn.ModuleDict, name: str) -> Any:
        if _slot(name) in modules:
            return modules[_slot(name)]
        if not name:
            raise IncompatibleError(
                f"this method has towers {sorted(modules)} and the view names none; "
                "wrap the augmenter in kontrast.ToTowers"
            )
        raise UnknownNameError("tower", name, modules)

    def _objective(self, pairs: Pairs) -> nn.Module:
        if _slot(pairs.name) in self.objectives:
            return self.objectives[_slot(pairs.name)]
        if _slot("") in self.objectives:  # one objective for whatever the sampler names
            return self.objectives[_slot("")]
        raise UnknownNameError("objective for the pairs named", pairs.name, self.objectives)


_ONLY = "default"  # a ModuleDict refuses the empty name


def _slot(name: str) -> str:
    return name or _ONLY


def _check_parts(*, sampler: Any, target: Any, similarity: Any) -> None:
    for name, part, kinds, remedy in (
        ("sampler", sampler, (PairSampler,), "write kontrast.InBatch(), an object"),
        ("target", target, (Momentum, StopGradient, type(None)), "write kontrast.Momentum(0.99)"),
        ("similarity", similarity, (Similarity, type(None)), "write kontrast.Cosine()"),
    ):
        if not isinstance(part, kinds):
            wanted = " or ".join(f"kontrast.{kind.__name__}" for kind in kinds if kind is not type(None))
            raise InvalidValueError(f"`{name}` must be a {wanted}, got {part!r}; {remedy}")


def _check_names(**parts: Mapping[str, Any]) -> None:
    for what, modules in parts.items():
        if not modules or any("." in name or hasattr(nn.ModuleDict, name) for name in modules if name):
            raise InvalidValueError(
                f"`{what}` must be a module, or modules by name (without dots, and no name of a dict's methods), "
                f"got {sorted(modules)}"
            )


def _check_bound(sampler: PairSampler, similarity: Similarity | None) -> None:
    if sampler.gives.bounded and similarity is not None and similarity.bound is None:
        raise IncompatibleError(
            f"the sampler {type(sampler).__name__} floors the debiased sum at the least score there can be, and "
            f"{type(similarity).__name__} has no bound; take kontrast.Cosine(), or give Debiased a `least_score`"
        )


def _by_name(part: Any) -> dict[str, Any]:
    if part is None:
        return {}
    return dict(part) if isinstance(part, Mapping) and not isinstance(part, nn.Module) else {"": part}


def _copies(views: Sequence[View]) -> list[Tensor]:
    """Number the augmented copies of all views, differently on every rank."""
    if not isinstance(views, Sequence) or not all(isinstance(view, View) for view in views):
        raise InvalidValueError(f"an augmenter must return a list of kontrast.View, got {type(views).__name__}")
    if not views:
        raise InvalidValueError("a method needs at least one view, got none; the augmenter returned an empty list")
    copies: list[Tensor] = []
    start = rank() << 40
    for view in views:
        copies.append(torch.arange(start, start + len(view.ids), device=view.ids.device))
        start += len(view.ids)
    return copies


def _concatenate(inputs: Sequence[Any]) -> Any:
    first = inputs[0]
    if isinstance(first, Tensor):
        if any(part.shape[1:] != first.shape[1:] for part in inputs):
            shapes = [list(part.shape) for part in inputs]
            raise IncompatibleError(
                f"joint_forward joins views whose inputs have one shape, got {shapes}; take an augmenter whose views "
                "are alike, or joint_forward=False"
            )
        return torch.cat(list(inputs))
    if isinstance(first, Mapping):
        return {name: _concatenate([part[name] for part in inputs]) for name in first}
    raise IncompatibleError(
        f"joint_forward joins tensors or mappings of tensors, got {type(first).__name__}; use joint_forward=False"
    )

"""The hooks a plugin may implement, and the two markers.

A plugin is a light module, named by an entry point of the group `kontrast`::

    # pyproject.toml:  [project.entry-points.kontrast]
    #                  my-plugin = "my_package.hooks"

    # my_package/hooks.py
    import kontrast
    from kontrast import MethodRecord

    @kontrast.hookimpl
    def kontrast_methods():
        return [MethodRecord("my-method", "my_package.my_method:my_method", summary="What it does")]

It must not import torch or anything as heavy: a record's factory is an import string for that reason.
"""

from collections.abc import Iterable

import pluggy

from .records import (
    AdapterRecord,
    AugmenterRecord,
    EncoderRecord,
    MethodRecord,
    ObjectiveRecord,
    ObserverRecord,
    OptimizerRecord,
    ProbeRecord,
    RecipeRecord,
    SamplerRecord,
)

__all__ = ["hookimpl"]

hookspec = pluggy.HookspecMarker("kontrast")
hookimpl = pluggy.HookimplMarker("kontrast")


@hookspec
def kontrast_methods() -> Iterable[MethodRecord]:
    """Return the methods this plugin provides."""
    ...


@hookspec
def kontrast_objectives() -> Iterable[ObjectiveRecord]:
    """Return the objectives this plugin provides."""
    ...


@hookspec
def kontrast_samplers() -> Iterable[SamplerRecord]:
    """Return the pair samplers this plugin provides."""
    ...


@hookspec
def kontrast_encoders() -> Iterable[EncoderRecord]:
    """Return the encoders this plugin provides."""
    ...


@hookspec
def kontrast_augmenters() -> Iterable[AugmenterRecord]:
    """Return the augmenters this plugin provides."""
    ...


@hookspec
def kontrast_adapters() -> Iterable[AdapterRecord]:
    """Return the domains this plugin provides."""
    ...


@hookspec
def kontrast_observers() -> Iterable[ObserverRecord]:
    """Return the run observers this plugin provides."""
    ...


@hookspec
def kontrast_optimizers() -> Iterable[OptimizerRecord]:
    """Return the optimizers this plugin provides."""
    ...


@hookspec
def kontrast_probes() -> Iterable[ProbeRecord]:
    """Return the probes this plugin provides, which `kontrast evaluate` judges encoders by."""
    ...


@hookspec
def kontrast_recipes() -> Iterable[RecipeRecord]:
    """Return the recipes this plugin provides: settings of `kontrast train` under a name."""
    ...

"""Samplers beyond the core's: neighbours, a guide, elements in samples, scales of time, what a batch is made of."""

from kontrast.plugins.samplers.composition import NoDuplicates, PerClass, SameGroup
from kontrast.plugins.samplers.future import FutureSteps
from kontrast.plugins.samplers.guide import WithGuide
from kontrast.plugins.samplers.guided import GuidedNegatives
from kontrast.plugins.samplers.local_global import LocalGlobal
from kontrast.plugins.samplers.nearest import NearestNeighbors
from kontrast.plugins.samplers.neighborhood import Neighborhood
from kontrast.plugins.samplers.pyramid import TimePyramid

__all__ = [
    "FutureSteps",
    "GuidedNegatives",
    "LocalGlobal",
    "NearestNeighbors",
    "Neighborhood",
    "NoDuplicates",
    "PerClass",
    "SameGroup",
    "TimePyramid",
    "WithGuide",
]

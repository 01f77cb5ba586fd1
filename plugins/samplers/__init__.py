"""Samplers beyond the core's: nearest neighbours, a guide, and what a batch is made of."""

from kontrast.plugins.samplers.composition import NoDuplicates, PerClass, SameGroup
from kontrast.plugins.samplers.guided import GuidedNegatives
from kontrast.plugins.samplers.nearest import NearestNeighbors

__all__ = ["GuidedNegatives", "NearestNeighbors", "NoDuplicates", "PerClass", "SameGroup"]

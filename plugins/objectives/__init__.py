"""Objectives, one idea per file."""

from kontrast.plugins.objectives.alignment_uniformity import AlignmentUniformity
from kontrast.plugins.objectives.cosine_regression import CosineRegression
from kontrast.plugins.objectives.decoupled import DCL, DCLW
from kontrast.plugins.objectives.graphcl import GraphCLContrast
from kontrast.plugins.objectives.info_nce import InfoNCE
from kontrast.plugins.objectives.jensen_shannon import JensenShannon
from kontrast.plugins.objectives.n_pair import NPair
from kontrast.plugins.objectives.nt_xent import NTXent
from kontrast.plugins.objectives.pairwise import PairwiseContrastive
from kontrast.plugins.objectives.positive_unlabelled import PositiveUnlabelled
from kontrast.plugins.objectives.sigmoid import SigLIP
from kontrast.plugins.objectives.sup_con import SupCon
from kontrast.plugins.objectives.temperature_free import TemperatureFreeInfoNCE
from kontrast.plugins.objectives.triplet import SoftTriplet, Triplet
from kontrast.plugins.objectives.vicreg import VICReg

__all__ = [
    "DCL",
    "DCLW",
    "AlignmentUniformity",
    "CosineRegression",
    "GraphCLContrast",
    "InfoNCE",
    "JensenShannon",
    "NPair",
    "NTXent",
    "PairwiseContrastive",
    "PositiveUnlabelled",
    "SigLIP",
    "SoftTriplet",
    "SupCon",
    "TemperatureFreeInfoNCE",
    "Triplet",
    "VICReg",
]

"""kontrast: a plugin registry for contrastive and self-supervised representation learning.

`import kontrast as kt`. What needs torch is imported when first used, so that plugins and listings stay light.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if __name__ != "kontrast":  # reached as core/ because the repository root is on sys.path
    raise ImportError(f"write `import kontrast`, not `import {__name__}`")

from .errors import (
    IncompatibleError,
    InvalidValueError,
    KontrastError,
    KontrastWarning,
    MissingExtraError,
    NonFiniteLossError,
    PluginError,
    RunFolderError,
    UnknownNameError,
)
from .getters import (
    get_adapter,
    get_augmenter,
    get_encoder,
    get_method,
    get_objective,
    get_observer,
    get_optimizer,
    get_probe,
    get_recipe,
    get_sampler,
)
from .hookspec import hookimpl
from .observer import Observer, Progress
from .optional import optional_import
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
from .registry import get_record, get_records, register

if TYPE_CHECKING:
    from . import evaluate as evaluate
    from .adapter import Adapter as Adapter
    from .augmenter import Augmenter as Augmenter
    from .augmenter import Identity as Identity
    from .augmenter import ToTowers as ToTowers
    from .block import Block as Block
    from .block import Rule as Rule
    from .checkpoint import CheckpointError as CheckpointError
    from .data import ArrayData as ArrayData
    from .data import Data as Data
    from .data import Splits as Splits
    from .dense import Elements as Elements
    from .dense import elements as elements
    from .diagnostics import CollapseWarning as CollapseWarning
    from .distributed import all_gather as all_gather
    from .distributed import all_sum as all_sum
    from .distributed import join_processes as join_processes
    from .distributed import rank as rank
    from .distributed import world_size as world_size
    from .encoder import Encoder as Encoder
    from .encoder import as_encoder as as_encoder
    from .heads import mlp as mlp
    from .heartbeat import LostRankError as LostRankError
    from .keys import Keys as Keys
    from .keys import key as key
    from .loss import Loss as Loss
    from .loss import Term as Term
    from .method import Method as Method
    from .mining import TopNegatives as TopNegatives
    from .mining import top_negatives as top_negatives
    from .negatives import Debiased as Debiased
    from .negatives import HardestNegatives as HardestNegatives
    from .negatives import HardNegatives as HardNegatives
    from .negatives import SemiHardNegatives as SemiHardNegatives
    from .norm import SyncBatchNorm as SyncBatchNorm
    from .objective import Needs as Needs
    from .objective import Objective as Objective
    from .optim import LARS as LARS
    from .optim import SGD as SGD
    from .optim import AdamW as AdamW
    from .optim import OptimizerSettings as OptimizerSettings
    from .pairs import Pairs as Pairs
    from .queue import IdQueue as IdQueue
    from .queue import Queue as Queue
    from .random import Draws as Draws
    from .report import embedding_picture as embedding_picture
    from .run import Run as Run
    from .sampler import Gives as Gives
    from .sampler import InBatch as InBatch
    from .sampler import PairSampler as PairSampler
    from .sampler import Positives as Positives
    from .sampler import Wrapper as Wrapper
    from .similarities import MLP as MLP
    from .similarities import Bilinear as Bilinear
    from .similarities import NegativeDistance as NegativeDistance
    from .similarities import NegativeSquaredDistance as NegativeSquaredDistance
    from .similarity import Cosine as Cosine
    from .similarity import Dot as Dot
    from .similarity import LearnedTemperature as LearnedTemperature
    from .similarity import Similarity as Similarity
    from .statistics import RowStatistics as RowStatistics
    from .statistics import row_statistics as row_statistics
    from .sums import pair_counts as pair_counts
    from .sums import row_sums as row_sums
    from .target import Momentum as Momentum
    from .target import StopGradient as StopGradient
    from .values import Batch as Batch
    from .values import Encoded as Encoded
    from .values import View as View
    from .values import across_ranks as across_ranks
    from .values import embedded as embedded
    from .values import stack as stack
    from .weights import load_encoder as load_encoder
else:
    # A type checker must not see this: a module `__getattr__` hides misspelt names from it.
    _HOME = {
        name: module
        for module, names in {
            "adapter": "Adapter",
            "augmenter": "Augmenter Identity ToTowers",
            "block": "Block Rule",
            "checkpoint": "CheckpointError",
            "data": "ArrayData Data Splits",
            "diagnostics": "CollapseWarning",
            "distributed": "all_gather all_sum join_processes rank world_size",
            "dense": "Elements elements",
            "encoder": "Encoder as_encoder",
            "heads": "mlp",
            "heartbeat": "LostRankError",
            "keys": "Keys key",
            "loss": "Loss Term",
            "method": "Method",
            "mining": "TopNegatives top_negatives",
            "negatives": "Debiased HardNegatives HardestNegatives SemiHardNegatives",
            "norm": "SyncBatchNorm",
            "objective": "Needs Objective",
            "optim": "AdamW LARS OptimizerSettings SGD",
            "pairs": "Pairs",
            "queue": "IdQueue Queue",
            "random": "Draws",
            "report": "embedding_picture",
            "run": "Run",
            "sampler": "Gives InBatch PairSampler Positives Wrapper",
            "similarity": "Cosine Dot LearnedTemperature Similarity",
            "similarities": "MLP Bilinear NegativeDistance NegativeSquaredDistance",
            "statistics": "RowStatistics row_statistics",
            "sums": "pair_counts row_sums",
            "target": "Momentum StopGradient",
            "values": "Batch Encoded View across_ranks embedded stack",
            "weights": "load_encoder",
        }.items()
        for name in names.split()
    }

    def __dir__():
        return sorted({*globals(), *__all__})

    def __getattr__(name):
        if name == "evaluate":
            return import_module(".evaluate", __name__)
        if name not in _HOME:
            raise AttributeError(f"module 'kontrast' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f".{_HOME[name]}", __name__), name)
        return value


__all__ = [
    "LARS",
    "MLP",
    "SGD",
    "AdamW",
    "Adapter",
    "AdapterRecord",
    "ArrayData",
    "Augmenter",
    "AugmenterRecord",
    "Batch",
    "Bilinear",
    "Block",
    "CheckpointError",
    "CollapseWarning",
    "Cosine",
    "Data",
    "Debiased",
    "Dot",
    "Draws",
    "Elements",
    "Encoded",
    "Encoder",
    "EncoderRecord",
    "Gives",
    "HardNegatives",
    "HardestNegatives",
    "IdQueue",
    "Identity",
    "InBatch",
    "IncompatibleError",
    "InvalidValueError",
    "Keys",
    "KontrastError",
    "KontrastWarning",
    "LearnedTemperature",
    "Loss",
    "LostRankError",
    "Method",
    "MethodRecord",
    "MissingExtraError",
    "Momentum",
    "Needs",
    "NegativeDistance",
    "NegativeSquaredDistance",
    "NonFiniteLossError",
    "Objective",
    "ObjectiveRecord",
    "Observer",
    "ObserverRecord",
    "OptimizerRecord",
    "OptimizerSettings",
    "PairSampler",
    "Pairs",
    "PluginError",
    "Positives",
    "ProbeRecord",
    "Progress",
    "Queue",
    "RecipeRecord",
    "RowStatistics",
    "Rule",
    "Run",
    "RunFolderError",
    "SamplerRecord",
    "SemiHardNegatives",
    "Similarity",
    "Splits",
    "StopGradient",
    "SyncBatchNorm",
    "Term",
    "ToTowers",
    "TopNegatives",
    "UnknownNameError",
    "View",
    "Wrapper",
    "across_ranks",
    "all_gather",
    "all_sum",
    "as_encoder",
    "elements",
    "embedded",
    "embedding_picture",
    "evaluate",
    "get_adapter",
    "get_augmenter",
    "get_encoder",
    "get_method",
    "get_objective",
    "get_observer",
    "get_optimizer",
    "get_probe",
    "get_recipe",
    "get_record",
    "get_records",
    "get_sampler",
    "hookimpl",
    "join_processes",
    "key",
    "load_encoder",
    "mlp",
    "optional_import",
    "pair_counts",
    "rank",
    "register",
    "row_statistics",
    "row_sums",
    "stack",
    "top_negatives",
    "world_size",
]

"""The conformance kit: holds an objective, a sampler and the other parts to what their interfaces promise.

    from kontrast.testing import check_objective
    check_objective("my-loss", oracle=my_loss_in_plain_loops)

On the CPU, without pytest, by the plugin's public interface alone; several GPUs are checked by processes of its own.
`kontrast check NAME` does the same from the command line, `parametrize_with_checks` makes one test of each check.
"""

from .adapter import adapter_checks, check_adapter
from .augmenter import augmenter_checks, check_augmenter
from .checks import Check, ConformanceError, NotCheckedError, Report, Result, run_checks
from .encoder import check_encoder, encoder_checks
from .method import check_method, method_checks
from .objective import check_objective, objective_checks
from .parametrize import parametrize_with_checks
from .processes import ProcessError, Processes, processes
from .sampler import check_sampler, sampler_checks
from .scene import example_views

__all__ = [
    "Check",
    "ConformanceError",
    "NotCheckedError",
    "ProcessError",
    "Processes",
    "Report",
    "Result",
    "adapter_checks",
    "augmenter_checks",
    "check_adapter",
    "check_augmenter",
    "check_encoder",
    "check_method",
    "check_objective",
    "check_sampler",
    "encoder_checks",
    "example_views",
    "method_checks",
    "objective_checks",
    "parametrize_with_checks",
    "processes",
    "run_checks",
    "sampler_checks",
]

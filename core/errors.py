"""What goes wrong, in one sentence each: the thing, the rule, what was found, the remedy.

::

    KontrastError
    +-- InvalidValueError (ValueError)       an argument breaks its rule
    +-- IncompatibleError (ValueError)       two parts that do not go together
    |   +-- NonFiniteLossError (ArithmeticError)   an embedding, a loss or a weight is infinite or not a number
    +-- UnknownNameError (KeyError)          no such method, sampler, adapter, option
    +-- PluginError (ImportError)            a plugin failed; names it and its distribution
    |   +-- MissingExtraError                a package is not installed; says which extra brings it
    +-- RunFolderError (FileExistsError)     a run folder that would be overwritten

What goes on nevertheless is a KontrastWarning (UserWarning).
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "IncompatibleError",
    "InvalidValueError",
    "KontrastError",
    "KontrastWarning",
    "MissingExtraError",
    "NonFiniteLossError",
    "PluginError",
    "RunFolderError",
    "UnknownNameError",
    "near_names",
]


class KontrastError(Exception):
    """The root of all exceptions that kontrast raises on purpose."""


class KontrastWarning(UserWarning):
    """The root of all warnings that kontrast gives."""


class InvalidValueError(KontrastError, ValueError):
    """An argument breaks its rule."""


class IncompatibleError(KontrastError, ValueError):
    """Two parts, each valid, that do not go together."""


class NonFiniteLossError(IncompatibleError, ArithmeticError):
    """Embeddings, the loss or weights became infinite or not a number.

    An objective that finds such values raises it with what it found; a run adds the step, the last good checkpoint and
    what to try.
    """


class UnknownNameError(KontrastError, KeyError):
    """Nothing is registered or known under a name."""

    def __init__(self, kind: str, name: str = "", known: Iterable[str] = (), *, hint: str = "") -> None:
        self.name = name
        # Made again from its sentence alone when it is unpickled, as by a pool of workers.
        super().__init__(f"no {kind} `{name}`{near_names(name, known)}{hint}" if name or known else kind)

    def __str__(self) -> str:  # KeyError would print the repr of the sentence
        return str(self.args[0])


class PluginError(KontrastError, ImportError):
    """A plugin, or something it provides, could not be loaded."""


class MissingExtraError(PluginError):
    """A registered name needs a package that is not installed."""


class RunFolderError(KontrastError, FileExistsError):
    """A run's folder exists already and would be overwritten."""


def near_names(name: str, known: Iterable[str]) -> str:
    """Say which names lie near `name` and which are known, to stand after "no method `name`"."""
    choices = sorted(known)
    near = get_close_matches(name, choices, n=3, cutoff=0.6)
    suggestion = f"; did you mean {' or '.join(f'`{choice}`' for choice in near)}?" if near else "."
    if near and len(choices) > 20:  # all options of a command would bury the one that is meant
        return suggestion
    return f"{suggestion} Known: {', '.join(choices) if choices else 'none'}"

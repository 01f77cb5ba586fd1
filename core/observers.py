"""The observers of a run: made by name, called at its turns."""

from collections.abc import Sequence
from typing import Any
from warnings import warn

from .errors import InvalidValueError
from .observer import Observer, ObserverWarning
from .records import ObserverRecord
from .registry import get_record

__all__ = ["Observers"]


class Observers:
    """Calls each observer on its own: one that raises is reported by name and left out from then on."""

    def __init__(self, observers: Sequence[str | Observer]) -> None:
        self._active = [_made(one) if isinstance(one, str) else one for one in observers]

    def call(self, turn: str, *arguments: Any) -> None:
        """Call one turn of every observer; each gets its own copy of the metrics."""
        for observer in tuple(self._active):
            try:
                getattr(observer, turn)(*(dict(part) if isinstance(part, dict) else part for part in arguments))
            except Exception as error:  # an observer must not end a run; it is named, and silent from here
                self._active.remove(observer)
                warn(
                    f"the observer {type(observer).__name__} failed in {turn} and is left out from here: "
                    f"{type(error).__name__}: {error}",
                    ObserverWarning,
                    stacklevel=2,
                )


def _made(name: str) -> Observer:
    record = get_record(ObserverRecord, name)
    make = record.load()
    with record.blamed():
        observer = make()
    if not isinstance(observer, Observer):
        raise InvalidValueError(f"the factory of observer `{name}` must return a kontrast.Observer, got {observer!r}")
    return observer

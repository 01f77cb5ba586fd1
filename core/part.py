"""What the interfaces share: a module whose repr shows what it is set to."""

from enum import Enum
from pathlib import PurePath
from typing import Any

from torch import nn

__all__ = ["Part"]


class Part(nn.Module):
    """A module that shows its settings.

    A setting is a public attribute that is a number, a word, a truth, None, a path, a choice, or a tuple or list of
    these. A run that is resumed must have the same ones. What changes while a run goes on is no setting: it belongs
    into a buffer, or into an attribute with a leading underscore.
    """

    def extra_repr(self) -> str:
        """Show the settings, in the order in which they were set."""
        settings = {name: value for name, value in vars(self).items() if name != "training" and name[0] != "_"}
        return ", ".join(f"{name}={value!r}" for name, value in settings.items() if _is_plain(value))


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, Enum, PurePath))

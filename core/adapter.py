"""The interface of domains."""

from abc import ABC, abstractmethod

from .data import Data, Splits

__all__ = ["Adapter"]


class Adapter(ABC):
    """What a domain tells the command line: how to load its data, and what to take where nothing is said.

    Encoders and augmenters of a domain are registered by records that name the adapter.
    """

    default_data: str
    default_encoder: str
    default_augmenter: str
    default_probe: str = "knn,linear"  # of `kontrast evaluate`; several have commas between them

    @abstractmethod
    def load(self, source: str) -> Splits[Data]:
        """Return the data set called `source`: a name, a file or a folder.

        Raises:
            UnknownNameError: if it is neither; near names are offered.
        """

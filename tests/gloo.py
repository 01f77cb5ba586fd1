"""One pool of gloo processes for the whole test session: that of the conformance kit."""

from kontrast.testing import Processes as GlooPool

__all__ = ["GlooPool"]

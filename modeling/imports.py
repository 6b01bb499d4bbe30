"""Importing torch and transformers in less time: they come with a million objects, none of which is ever garbage."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 100
"""New modules from which on what was imported is kept away from the garbage collector."""


@contextmanager
def quick_imports() -> Iterator[None]:
    """No garbage is collected while the block imports, nor later among the objects that came with it.

    That spares about a third of the CPU time of a process that does little else: collections during the imports, and
    the last one at its end. A block that imports little changes nothing.
    """
    enabled, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) - before > MANY:
            gc.freeze()
        if enabled:
            gc.enable()

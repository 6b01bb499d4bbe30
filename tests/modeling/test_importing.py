import gc
import sys
from types import ModuleType

import pytest

from modeling.imports import MANY, quick_imports


@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize("modules", [MANY, MANY + 1])
def test_what_much_was_imported_with_is_kept_from_the_collector(monkeypatch, enabled, modules):
    (gc.enable if enabled else gc.disable)()
    try:
        frozen = gc.get_freeze_count()
        with quick_imports():
            assert not gc.isenabled()
            for number in range(modules):
                monkeypatch.setitem(sys.modules, f"module_{number}", ModuleType("module"))
        assert gc.isenabled() == enabled
        assert (gc.get_freeze_count() > frozen) == (modules > MANY)
    finally:
        gc.enable()

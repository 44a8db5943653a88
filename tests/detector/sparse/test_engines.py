import subprocess
import sys

import pytest

from detector.errors import InputError
from detector.sparse import current_engine, use_engine
from detector.sparse.engines import ENGINES


def test_native_is_the_default():
    assert current_engine().name == "native"


def test_an_unknown_engine_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="unknown sparse engine 'cudnn'.*native"):
        use_engine("cudnn")
    assert current_engine().name == "native"


def test_an_engine_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setitem(ENGINES, "other", "a_package_that_nobody_has")
    with pytest.raises(InputError, match="'other' can't be loaded.*a_package_that_nobody_has"):
        use_engine("other")
    assert current_engine().name == "native"


def test_numba_is_loaded_by_the_first_kernel_and_not_by_the_import():
    """A machine with a GPU may lack it."""
    code = (
        "import sys, detector.sparse, detector.ops.voxelize, detector.ops.boxes\n"
        "sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

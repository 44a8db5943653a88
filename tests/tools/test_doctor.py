import subprocess
import sys

from tests.conftest import REPOSITORY


def test_the_tool_prints_a_sentence_each_and_ends_with_0():
    done = subprocess.run(
        [sys.executable, REPOSITORY / "tools" / "doctor.py"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Device: " in done.stdout and "Engine: " in done.stdout
    assert done.stdout.rstrip().endswith("Focal3D can be used.")

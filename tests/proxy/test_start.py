"""What a start waits for."""

import subprocess
import sys


def test_a_sidecar_answers_before_numpy_is_there() -> None:
    """It takes a third of a second: the predictor brings it in beside the first calls."""
    code = "import sys, penstock.proxy.server; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

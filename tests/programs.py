"""Programs that no wheel brings."""

import os
import shutil

import pytest


def needed(program: str, package: str) -> str:
    """Return where a program is; skip the test without it, but fail in continuous integration."""
    found = shutil.which(program)
    if found is None:
        told = f"no {program} here (Debian: apt-get install {package}, as .ci/run does)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(told)
    return found

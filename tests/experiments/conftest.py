"""Ray is large and stays out of the usual environment; `make test-ray` runs its test in its own."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("ray") else ["test_cluster.py"]

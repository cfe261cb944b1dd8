"""What the sidecar says while it runs."""

import logging


def log_to_stderr(level: str) -> None:
    """Send penstock's own log to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("penstock")
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False

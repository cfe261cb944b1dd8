"""One fast provider for a file's tests."""

from tests.proxy.conftest import mock

__all__ = ["mock"]

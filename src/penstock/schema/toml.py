"""Reads TOML files, and says in one line why one cannot be read."""

import tomllib
from pathlib import Path
from typing import Any

from penstock.errors import ConfigError
from penstock.private_file import NotPrivate, open_private


def read_toml(path: str | Path, *, private: bool = False) -> dict[str, Any]:
    """Return a file's tables.

    Args:
        path: where the file is.
        private: whether nobody but its owner may be able to write it.

    Raises:
        ConfigError: it cannot be read, or is no TOML; the text says where and why.

    """
    opener = open_private if private else None
    try:
        # Windows' editors write a BOM
        with open(path, encoding="utf-8-sig", opener=opener) as file:
            text = file.read()
    except NotPrivate as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}): is it the right path?"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: must be UTF-8 text: is it a TOML file?") from None
    return parse_toml(text, where=str(path))


def parse_toml(text: str, *, where: str) -> dict[str, Any]:
    """Return a text's tables.

    Raises:
        ConfigError: it is no TOML.

    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not all are TOML's own: a number too long
        raise ConfigError(f"{where}: is not TOML: {error}") from None

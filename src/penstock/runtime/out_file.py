"""Finds out whether a file can be written, before there is anything to write."""

import errno
import stat
import tempfile
from pathlib import Path

_LIKELY = {
    errno.EACCES: "does it, or its folder, belong to somebody else?",
    errno.EISDIR: "a folder stands there; name a file in it",
    errno.ENAMETOOLONG: "file systems take names of up to 255 bytes",
    errno.ENOSPC: "the disk is full",
    errno.ENOTDIR: "a part of the path that should be a folder is a file",
    errno.EROFS: "the file system is mounted read-only",
}
_OTHERWISE = "is the path mistyped?"


def try_file(path: Path) -> None:
    """Do what writing a file would do, and leave nothing behind.

    Permission bits do not tell it: root may write where they say no, and on a read-only or
    virtual file system nobody may where they say yes. A folder that is not there is no mistake.

    Raises:
        OSError: it cannot be written.

    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        folder = next(each for each in path.absolute().parents if each.exists())
        with tempfile.TemporaryFile(dir=folder):
            return
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # opening a pipe would wait for its reader
        path.open("ab").close()


def likely_cause(error: OSError) -> str:
    """Return in words why a file probably cannot be written."""
    return _LIKELY.get(error.errno or 0, _OTHERWISE)

"""Files that hold names or prompts, or say what to do: only their owner may write them.

And whether a file can be written at all, found out before there is anything to write.
"""

import errno
import os
import stat
import tempfile
from pathlib import Path

from penstock.errors import PenstockError

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


_FILE, _FOLDER = 0o600, 0o700


class FileInUse(PenstockError):
    """A file that another process of penstock's writes: two writers would spoil it."""


class NotPrivate(PenstockError):
    """A file that everybody may write, or put another in its place: it would be believed."""


def open_private(path: Path | str, flags: int) -> int:
    """Open a file for its owner alone; made with mode 0600 where it is not there.

    An `opener` for `open`. One that is there keeps its mode: its owner may have shared it.

    Raises:
        NotPrivate: everybody may write it, or its folder; or somebody else has put it, or a link,
            where everybody may.
        OSError: it cannot be opened.

    """
    folder = Path(path).parent
    if (mode := open_mode(folder)) is not None:
        makes = (
            ", or name a folder inside that is not there yet: penstock makes it for its owner alone"
        )
        raise NotPrivate(
            f"{path}: everybody may write into its folder (mode {mode:04o}), and so put another "
            f"file in its place; chmod o-w {folder}{makes if flags & os.O_CREAT else ''}"
        )
    if (owner := _others(Path(path), folder)) is not None:
        raise NotPrivate(
            f"{path} belongs to user {owner}, in a folder where everybody may put files: move it "
            f"away, or name a file in a folder that only its owner may write into"
        )
    at_once = getattr(os, "O_NONBLOCK", 0)  # or a FIFO is waited for until somebody reads it
    file = os.open(path, flags | at_once | getattr(os, "O_CLOEXEC", 0), _FILE)
    if at_once:
        os.set_blocking(file, True)
    mode = os.fstat(file).st_mode
    if stat.S_ISREG(mode) and _everybodys(mode, file):
        os.close(file)
        raise NotPrivate(
            f"{path} may be written by everybody (mode {stat.S_IMODE(mode):04o}): only its owner "
            f"may be able to; chmod o-w {path}, once you know that nobody has changed it"
        )
    return file


def open_mode(folder: Path) -> int | None:
    """Return the mode of a folder where everybody may put one file in another's place; else None.

    In a sticky one (/tmp) nobody can.

    Raises:
        OSError: there is no such folder.

    """
    mode = stat.S_IMODE(folder.stat().st_mode)
    return mode if not mode & stat.S_ISVTX and _everybodys(mode, folder) else None


def _others(path: Path, folder: Path) -> int | None:
    """Return who has put a file or a link there, if neither this user nor the folder's owner.

    Source:
        Linux's `fs.protected_symlinks` and `fs.protected_regular`, which may be off.

    """
    around = folder.stat()
    if os.name != "posix" or not around.st_mode & stat.S_ISVTX:
        return None
    try:
        owner = path.lstat().st_uid
    except FileNotFoundError:
        return None
    return None if owner in (os.geteuid(), around.st_uid) else owner


def _everybodys(mode: int, place: Path | int) -> bool:
    """Return whether everybody may write there.

    What is mounted read-only nobody can: so Kubernetes mounts a ConfigMap (mode 0777), and Docker
    on Windows shows every file of its host as 0777.
    """
    if os.name != "posix" or not mode & stat.S_IWOTH:
        return False
    return not os.statvfs(place).f_flag & os.ST_RDONLY


def make_private_folder(folder: Path) -> None:
    """Make a folder, and those above it that are not there, for its owner alone.

    Raises:
        OSError: it cannot be made.

    """
    for each in reversed((folder, *folder.parents)):
        if not each.exists():
            each.mkdir(mode=_FOLDER, exist_ok=True)


def lock_file(descriptor: int, path: Path) -> None:
    """Take an open file for this process alone, until it is closed.

    Raises:
        FileInUse: another process has it.

    """
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows has none
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FileInUse(
            f"{path} is written by another process: give each a file of its own (does another "
            "penstock run already?)"
        ) from None
    except OSError:  # some network file systems know no locks
        return

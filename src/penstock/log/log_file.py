"""The decision log's file: private, one writer's alone, bounded, and sound when others touch it."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from penstock.private_file import lock_file, make_private_folder, open_private


class LogFile:
    """Appends whole lines.

    - It is moved away or deleted: the next lines go to a new file of the old name.
    - It is truncated (`copytruncate` of logrotate): the next lines follow a new header.
    - It grows beyond its bound: it becomes `path.1`, that one `path.2`, and so on.

    Args:
        path: of the file; its folder is made if there is none.
        header: the first line of every file; another one holds for the files that come.
        max_bytes: a file is rotated before it grows beyond this.
        files: how many are kept in all.

    Raises:
        NotPrivate: others may write the file.
        FileInUse: another process writes it.
        OSError: it cannot be opened.

    """

    def __init__(self, path: Path, header: bytes, *, max_bytes: int, files: int) -> None:
        """Open the file and write the header."""
        self.path = path
        self.header = header
        self._max_bytes = max_bytes
        self._files = max(1, files)
        self._size = 0
        self._file: BinaryIO | None = None
        self.reopen()

    def append(self, lines: list[bytes]) -> None:
        """Write lines, each whole, at the end.

        Raises:
            NotPrivate, FileInUse, OSError: some of them are not written; `reopen` drops the line
                that was cut.

        """
        self._look()
        batch: list[bytes] = []
        size = self._size
        for line in lines:
            if size + len(line) > self._max_bytes and size > len(self.header):
                self._write(b"".join(batch))
                batch.clear()
                self._rotate()
                size = self._size
            batch.append(line)
            size += len(line)
        self._write(b"".join(batch))

    def reopen(self) -> None:
        """Open the file of that name, whatever has become of the one that was open.

        Raises:
            NotPrivate, FileInUse, OSError: it cannot be opened.

        """
        self.close()
        make_private_folder(self.path.parent)
        file = open(self.path, "ab", buffering=0, opener=open_private)  # noqa: SIM115 - Path.open takes no opener
        try:
            lock_file(file.fileno(), self.path)
            _drop_cut_line(self.path)
        except BaseException:
            file.close()
            raise
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._write(self.header)

    def close(self) -> None:
        """Close the file; nothing is buffered."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _look(self) -> None:
        """See whether the file is still the one of that name, and as long as we left it."""
        if self._file is None:
            self.reopen()
            return
        mine = os.fstat(self._file.fileno())
        try:
            there = self.path.stat()
        except FileNotFoundError:
            self.reopen()
            return
        if (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
            self.reopen()
        elif stat.S_ISREG(mine.st_mode) and mine.st_size < self._size:
            self._size = mine.st_size
            self._write(self.header)

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        rest = memoryview(data)
        while rest:
            written = self._file.write(rest)
            self._size += written
            rest = rest[written:]

    def _rotate(self) -> None:
        self.close()
        for number in range(self._files - 1, 0, -1):
            elder = self.path if number == 1 else self._elder(number - 1)
            if elder.exists():
                elder.replace(self._elder(number))
        if self._files == 1:
            self.path.unlink(missing_ok=True)
        self.reopen()

    def _elder(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def _drop_cut_line(path: Path) -> None:
    """Remove what a crash left of a line at the file's end."""
    if not path.is_file():
        return
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        while end > 0:
            start = max(0, end - 65_536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
            end = start
        file.truncate(0)

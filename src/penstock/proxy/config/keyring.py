"""Where keys come from: the environment, files, and commands that print short-lived tokens."""

import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from penstock.private_file import open_mode
from penstock.wire.secret import KeyProblem, Secret

COMMAND_TIMEOUT_S = 10.0
LARGEST_KEY_BYTES = 65_536

KeyKind = Literal["env", "file", "command"]
KINDS: tuple[KeyKind, ...] = get_args(KeyKind)


@dataclass(frozen=True, slots=True)
class KeySource:
    """One place of the configuration that says where a key is.

    Attributes:
        place: the key of the file, such as `upstreams[0].api_key_env`.
        kind: what `words` are: a variable's name, a file's path, or a program and its arguments.

    """

    place: str
    kind: KeyKind
    words: tuple[str, ...]


def read_key(source: KeySource, env: Mapping[str, str]) -> Secret:
    """Return the key that a source holds now; a command gets `COMMAND_TIMEOUT_S`.

    Raises:
        KeyProblem: there is none, or it cannot stand in a header.

    """
    if source.kind == "env":
        return Secret.of(env.get(source.words[0]))
    if source.kind == "file":
        return Secret.of(_of_file(Path(source.words[0])))
    return Secret.of(_of_command(source.words))


def _of_file(path: Path) -> str:
    try:
        found = path.stat().st_mode
        if not stat.S_ISREG(found) and not stat.S_ISDIR(found):  # opening it may wait for ever
            raise KeyProblem("is a pipe or a device", "a program is asked by a command instead")
        mode = stat.S_IMODE(found)
        with path.open("rb") as file:
            data = file.read(LARGEST_KEY_BYTES)
        folder_mode = open_mode(path.parent)
    except OSError as error:
        raise KeyProblem(
            f"cannot be read: {error.strerror or 'an error of the system'}",
            "is it there, and may penstock's user read it?",
        ) from None
    if mode & stat.S_IWOTH:
        raise KeyProblem("may be written by anybody", f"its mode is {mode:04o}: chmod o-w")
    if folder_mode is not None:
        raise KeyProblem(
            "is in a folder that anybody may write to", f"its mode is {folder_mode:04o}: chmod o-w"
        )
    if not data.strip():
        raise KeyProblem("names an empty file", "is it written by another program, later?")
    return data.decode("latin-1")


def _of_command(words: tuple[str, ...]) -> str:
    """Return what the program prints; what it says on stderr may hold secrets and is not shown."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise KeyProblem(
            f"did not end within {COMMAND_TIMEOUT_S:g} s", "does it ask for something?"
        ) from None
    except OSError as error:
        raise KeyProblem(
            f"cannot be started: {error.strerror or 'an error of the system'}",
            "it is a list of words, the program first; no shell reads it",
        ) from None
    if done.returncode != 0 or not done.stdout.strip():
        said = f"ended with status {done.returncode}" if done.returncode else "printed nothing"
        raise KeyProblem(said, "what does it print when penstock's user runs it by hand?")
    return done.stdout[:LARGEST_KEY_BYTES].decode("latin-1")


class Keyring:
    """The keys of one reading of the configuration: each source is asked once."""

    def __init__(self, env: Mapping[str, str]) -> None:
        """Know the environment; nothing is read yet."""
        self.env = env
        self._read: dict[KeySource, Secret | KeyProblem] = {}

    def key(self, source: KeySource) -> Secret:
        """Return a source's key.

        Raises:
            KeyProblem: it has none.

        """
        found = self._read.get(source)
        if found is None:
            try:
                found = read_key(source, self.env)
            except KeyProblem as problem:
                found = problem
            self._read[source] = found
        if isinstance(found, KeyProblem):
            raise found
        return found

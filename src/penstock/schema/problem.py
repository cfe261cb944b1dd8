"""What is wrong with a configuration, in sentences: key, value, rule, likely cause."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from penstock.core.rule import shown as printable
from penstock.errors import ConfigError

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_SECRETIVE = re.compile(r"key|token(?!s)|secret|password|authoriz|credential", re.IGNORECASE)
_KEY_LIKE = re.compile(r"\b(sk|pk|gsk|key|Bearer)[-_ ][\w-]{6,}|[A-Za-z0-9_-]{40,}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, as a person needs to hear it."""

    key: str
    value: str
    rule: str
    cause: str = ""

    def __str__(self) -> str:
        head = f"{self.key} = {self.value}" if self.value else self.key
        tail = f" ({self.cause})" if self.cause else ""
        return f"{head}: {self.rule}{tail}" if head else f"{self.rule}{tail}"

    def below(self, place: str) -> "Problem":
        """Return the same problem of a table at a place, by its key in the whole file."""
        return replace(self, key=".".join(part for part in (place, self.key) if part))


class Mistakes(ConfigError):
    """Everything that is wrong with one table.

    Attributes:
        problems: one sentence each.

    """

    def __init__(self, problems: Sequence[object]) -> None:
        """Return all of them, a line each."""
        super().__init__("\n".join(map(str, problems)))
        self.problems = list(problems)


class Collected:
    """Collects what separate readings find wrong, so that one mistake hides no other."""

    def __init__(self) -> None:
        """Start with nothing wrong."""
        self.problems: list[object] = []

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep what the block refuses; the block ends there, the reading goes on."""
        try:
            yield
        except Mistakes as mistakes:
            self.problems += mistakes.problems
        except ConfigError as mistake:
            self.problems.append(mistake)

    def refuse(self) -> None:
        """Refuse what was found.

        Raises:
            Mistakes: anything was.

        """
        if self.problems:
            raise Mistakes(self.problems)


def shown(key: str, value: Any) -> str:
    """Return a value for an error text; hidden where it may be a key that strayed in here."""
    if isinstance(value, Mapping | list | tuple):
        kind = "a table" if isinstance(value, Mapping) else "a list"
        plain = not value or all(isinstance(item, int | float) for item in value)
        return kind if (isinstance(value, Mapping) and value) or not plain else _listed(value)
    last = key.rsplit(".", 1)[-1]
    if isinstance(value, str):
        named = last.endswith("_env") and ENV_NAME.match(value)
        strange = _KEY_LIKE.search(value) or ("@" in value and "://" in value)
        if strange or (_SECRETIVE.search(last) and not named):
            return "(hidden)"
    text = printable(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _listed(value: Mapping[str, Any] | list[Any] | tuple[Any, ...]) -> str:
    text = "{}" if isinstance(value, Mapping) else printable(list(value))
    return text if len(text) <= 80 else "a list"


def close_to(word: str, known: Iterable[str]) -> str:
    """Return a hint at the known word that was probably meant."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"


def refusal(where: str, problems: Sequence[object]) -> ConfigError:
    """Return the error that names everything wrong with a file."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = "".join(f"\n  {problem}" for problem in problems)
    return ConfigError(f"{where}: {count}; nothing was started.{lines}")


def refuse_unknown(given: Iterable[str], known: Iterable[str], *, where: str) -> None:
    """Refuse keys that nobody reads.

    Raises:
        Mistakes: keys are not among the known; the text suggests the nearest.

    """
    names = list(known)
    unknown = [key for key in given if key not in names]
    if unknown:
        raise Mistakes(
            [Problem(f"{where}.{key}", "", "is no key of this table", close_to(key, names))
             for key in unknown]
        )  # fmt: skip

"""Turns what is wrong with a configuration into sentences: key, value, rule, likely cause."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from penstock.proxy.config.models import ENV_NAME, Config

_SECRETIVE = re.compile(r"key|token|secret|password|auth|credential", re.IGNORECASE)
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
        return f"{head}: {self.rule}{tail}"


def dotted(loc: Sequence[str | int]) -> str:
    """Return a location as the TOML file spells it: upstreams[0].base_url."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text or "(file)"


def shown(key: str, value: Any) -> str:
    """Return a value for an error text; hidden where it may be a key that strayed in here."""
    if isinstance(value, Mapping | list):
        return ""
    text = repr(value)
    last = key.rsplit(".", 1)[-1]
    if last.endswith("_env"):
        return text if isinstance(value, str) and ENV_NAME.match(value) else "(hidden)"
    if isinstance(value, str) and (_SECRETIVE.search(last) or _KEY_LIKE.search(value)):
        return "(hidden)"
    if isinstance(value, str) and "@" in value and "://" in value:
        return "(hidden)"
    return text if len(text) <= 80 else text[:77] + "..."


def _model_at(loc: Sequence[str | int]) -> type[BaseModel] | None:
    model: type[BaseModel] | None = Config
    for part in loc:
        if isinstance(part, int) or model is None:
            continue
        field = model.model_fields.get(part)
        model = None if field is None else _model_in(field.annotation)
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None


def _unknown_key(loc: Sequence[str | int]) -> tuple[str, str]:
    model = _model_at(loc[:-1])
    known = sorted(model.model_fields) if model is not None else []
    close = difflib.get_close_matches(str(loc[-1]), known, n=1, cutoff=0.5)
    if close:
        return "is no key of this table", f"did you mean {close[0]}?"
    return "is no key of this table", f"it knows {', '.join(known)}"


def _value_at(data: Any, loc: Sequence[str | int]) -> Any:
    for part in loc:
        try:
            data = data[part]
        except (LookupError, TypeError):
            return {}
    return data


_CAUSES = {
    "missing": "was the line forgotten, or put under another table?",
    "bool_type": "true and false stand without quotes in TOML",
    "int_type": "whole numbers stand without quotes and without a point in TOML",
    "float_type": "numbers stand without quotes in TOML",
    "string_type": "text stands in quotes in TOML",
    "list_type": "lists stand in [ ] in TOML; tables of a list under [[name]]",
    "model_type": "a table stands under its own [name] in TOML",
    "finite_number": "inf and nan are not allowed here",
}


def problems_of(error: ValidationError, data: Any) -> list[Problem]:
    """Return every problem that pydantic found, in the file's words."""
    found: list[Problem] = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        loc = item["loc"]
        key = dotted(loc)
        if item["type"] == "extra_forbidden":
            rule, cause = _unknown_key(loc)
        else:
            rule = item["msg"].removeprefix("Value error, ")
            rule = rule.replace("Input should be", "must be").replace(
                "Field required", "is missing"
            )
            cause = _CAUSES.get(item["type"], "")
        found.append(Problem(key, shown(key, _value_at(data, loc)), rule, cause))
    return found

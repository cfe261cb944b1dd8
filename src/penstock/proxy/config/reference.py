"""The configuration's reference page, made from the schema so that it cannot fall behind."""

import dataclasses
from typing import Any

from penstock.proxy.config.models import Config
from penstock.proxy.config.schema import Items, Rule, Table


def markdown() -> str:
    """Return every table with its keys, rules, defaults and meanings."""
    return "\n\n".join(_tables(Config, ""))


def _tables(kind: Any, path: str) -> list[str]:
    """Return a table's page and those of the tables inside it, in the file's order."""
    fields = dataclasses.fields(kind)
    inner = [(field, found) for field in fields if (found := _inner(field.metadata["rule"]))]
    pages = []
    if path:
        plain = [field for field in fields if _inner(field.metadata["rule"]) is None]
        rows = "\n".join(_row(field) for field in plain)
        head = "| key | must | default | meaning |\n|---|---|---|---|"
        pages.append(f"## {path}\n\n{kind.__doc__}\n\n{head}\n{rows}")
    for field, (table, many) in inner:
        name = f"{path.strip('[]')}.{field.name}" if path else field.name
        pages += _tables(table, f"[[{name}]]" if many else f"[{name}]")
    return pages


def _inner(rule: Rule) -> tuple[type, bool] | None:
    if isinstance(rule, Table):
        return rule.kind, False
    if isinstance(rule, Items) and isinstance(rule.item, Table):
        return rule.item.kind, True
    return None


def _row(field: "dataclasses.Field[Any]") -> str:
    rule = field.metadata["rule"]
    says = rule.says
    if isinstance(rule, Items):
        says = f"{says}, each to {rule.item.says}"
    return (
        f"| `{field.name}` | {says} | {_default(field.default)} | {field.metadata['description']} |"
    )


def _default(value: Any) -> str:
    if value is dataclasses.MISSING:
        return "must be given"
    if value is None:
        return "left out"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, tuple):
        return "`[" + ", ".join(f'"{item}"' for item in value) + "]`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"

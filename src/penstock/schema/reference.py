"""A file's reference page, made from its declaration so that it cannot fall behind."""

import json
from typing import Any

from penstock.schema.json_schema import Node, resolved, schema_of, words
from penstock.schema.types import Table


def markdown(kind: type[Table]) -> str:
    """Return every table with its keys, rules, defaults and meanings."""
    root = schema_of(kind)
    return "\n\n".join(_tables(root, root, ""))


def _tables(root: Node, table: Node, path: str) -> list[str]:
    """Return a table's page and those of the tables inside it, in the file's order."""
    keys = {name: resolved(root, node) for name, node in table["properties"].items()}
    keys = dict(sorted(keys.items(), key=lambda item: item[0] not in table.get("required", ())))
    inner = {name: found for name, node in keys.items() if (found := _inner(root, node))}
    pages = []
    if path:
        rows = "\n".join(
            _row(root, name, node, name in table.get("required", ()))
            for name, node in keys.items()
            if name not in inner
        )
        head = "| key | must | default | meaning |\n|---|---|---|---|"
        meaning = table["description"].replace("\n", " ")
        pages.append(f"## {path}\n\n{meaning}\n\n{head}\n{rows}")
    for name, (table_, many) in inner.items():
        full = f"{path.strip('[]')}.{name}" if path else name
        pages += _tables(root, table_, f"[[{full}]]" if many else f"[{full}]")
    return pages


def _inner(root: Node, node: Node) -> tuple[Node, bool] | None:
    if "properties" in node:
        return node, False
    item = resolved(root, node.get("items", {}))
    return (item, True) if "properties" in item else None


def _row(root: Node, name: str, node: Node, required: bool) -> str:
    rule = words(node)
    if "items" in node:
        rule = f"{rule}, each to {words(resolved(root, node['items']))}"
    default = "must be given" if required else _default(node)
    return f"| `{name}` | {rule} | {default} | {node['description']} |"


def _default(node: Node) -> str:
    if "default" not in node:
        return "left out"
    value: Any = node["default"]
    return f"`{value:g}`" if isinstance(value, float) else f"`{json.dumps(value)}`"

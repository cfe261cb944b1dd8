"""A table's JSON Schema, its reference page, and the words for what it asks of one key."""

import json
from functools import cache
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from penstock.schema.types import Table

Node = dict[str, Any]
_TYPES = {"boolean": "be true or false", "object": "be a table", "array": "be a list"}


class TomlSchema(GenerateJsonSchema):
    """TOML has no null: a key that may be left out is just not required."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """Return the schema of what is not null."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Return the schema with its default, if that can be written."""
        if schema.get("default", ...) is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False: a title would only say the name again."""
        return False


@cache
def schema_of(kind: type[Table]) -> Node:
    """Return a table's JSON Schema, as editors take it."""
    return kind.model_json_schema(schema_generator=TomlSchema)


def document_of(kind: type[Table]) -> Node:
    """Return the schema as a document of its own."""
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema_of(kind)}


def resolved(root: Node, node: Node) -> Node:
    """Return a node with what it refers to."""
    name = node.get("$ref", "").removeprefix("#/$defs/")
    plain = {key: value for key, value in node.items() if key != "$ref"}
    return {**root["$defs"][name], **plain} if name else node


def properties_of(kind: type[Table]) -> Node:
    """Return the JSON Schemas of a table's keys, by key."""
    root = schema_of(kind)
    return {name: resolved(root, node) for name, node in root["properties"].items()}


def node_at(root: Node, place: tuple[str | int, ...]) -> Node:
    """Return the schema of the key at a place; that of its table where there is no such key."""
    node = resolved(root, root)
    for step in place:
        inner = node.get("items") if isinstance(step, int) else node.get("properties", {}).get(step)
        inner = inner or node.get("additionalProperties")
        inner = inner or next(iter(node.get("patternProperties", {}).values()), None)
        if not isinstance(inner, dict):
            return node
        node = resolved(root, inner)
    return node


def words(node: Node) -> str:
    """Return what a value must be, as it follows the word "must"."""
    if "x-rule" in node:
        return str(node["x-rule"])
    choices = node.get("enum", [node["const"]] if "const" in node else [])
    if choices:
        return f"be one of {', '.join(map(str, choices))}"
    kind = node.get("type")
    if kind in ("integer", "number"):
        whole = kind == "integer" or node.get("multipleOf") == 1
        unit = f" of {node['x-unit']}" if node.get("x-unit") else ""
        return f"be a {'whole ' if whole else ''}number{unit}{_span(node)}"
    if kind == "string":
        return "be text" + _length(node)
    if kind == "array" and "minItems" in node:
        return f"be a list of {node['minItems']} or more"
    return _TYPES.get(str(kind), "be of another kind")


def _span(node: Node) -> str:
    least, above = node.get("minimum"), node.get("exclusiveMinimum")
    most, below = node.get("maximum"), node.get("exclusiveMaximum")
    if least is not None and most is not None:
        return f", from {least:g} to {most:g}" if isinstance(most, float) else (
            f", from {least} to {most}"
        )  # fmt: skip
    parts = []
    if above is not None:
        parts.append(f"above {above:g}")
    if least is not None:
        parts.append(f"{least:g} or more")
    if most is not None:
        parts.append(f"at most {most:g}")
    if below is not None:
        parts.append(f"below {below:g}")
    return f", {' and '.join(parts)}" if parts else ""


def _length(node: Node) -> str:
    if "maxLength" in node:
        return f" of {node.get('minLength', 0)} to {node['maxLength']} characters"
    return ", not empty" if node.get("minLength") else ""


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

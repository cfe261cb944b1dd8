"""Policies as files name them: by name alone, or as a table with a kind and its options."""

import math
from collections.abc import Iterator, Mapping
from functools import reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from penstock.core.rule import BrokenRules
from penstock.core.settings import PolicySpec
from penstock.errors import ConfigError
from penstock.policies.registry import POLICIES, annotations_of, make, options_of
from penstock.schema.json_schema import TomlSchema
from penstock.schema.problem import Problem, close_to, shown
from penstock.schema.types import COMPLAINTS, ruled

_RULE = "be a policy's name, or a table with a kind"


class PolicyOf:
    """Marks a key that holds a policy of one layer."""

    def __init__(self, layer: str) -> None:
        """Accept the kinds of the layer."""
        self._layer = layer

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._read)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        tables = [
            {
                "type": "object",
                "additionalProperties": False,
                "required": ["kind"],
                "properties": {
                    "kind": {"const": kind},
                    **_options(self._layer, kind),
                },
            }
            for kind in POLICIES[self._layer]
        ]
        names = {"enum": list(POLICIES[self._layer])}
        return {"x-rule": _RULE, "anyOf": [names, *tables]}

    def _read(self, value: object) -> PolicySpec:
        if isinstance(value, str):
            spec = PolicySpec(value)
        elif isinstance(value, Mapping) and isinstance(value.get("kind"), str):
            spec = PolicySpec(value["kind"], {k: v for k, v in value.items() if k != "kind"})
        else:
            raise PydanticCustomError("policy", "no policy")
        found = list(problems_of(self._layer, spec))
        if found:
            raise PydanticCustomError(COMPLAINTS, "no policy", {"found": found})
        return spec


def _options(layer: str, kind: str) -> dict[str, dict[str, Any]]:
    """Return the schemas of a kind's options: their types, bounds and defaults."""
    hints = annotations_of(layer, kind)
    schemas = {}
    for name, default in options_of(layer, kind).items():
        schema = TypeAdapter(_bounded(hints[name])).json_schema(schema_generator=TomlSchema)
        plain = default is not None and default != math.inf
        schemas[name] = {**schema, "default": default} if plain else schema
    return schemas


def _bounded(hint: Any) -> Any:
    """Return a type with the bounds of the rules in it, as pydantic knows them."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        rule = hint.__metadata__[0]
        if rule.choices:
            return Literal[rule.choices]
        return Annotated[int if rule.whole else float, ruled(rule)]
    if origin is UnionType:
        return reduce(or_, map(_bounded, inner))
    return origin[tuple(map(_bounded, inner))] if origin is Mapping else hint


def problems_of(layer: str, spec: PolicySpec, *args: object) -> Iterator[Problem]:
    """Yield what is wrong with a policy, by the names of its options.

    Args:
        layer: the layer that it is for.
        spec: the policy.
        args: what the layer's policies are made with; without them, allocation's values are not
            tried, as they may name classes.

    """
    kinds = POLICIES[layer]
    if spec.kind not in kinds:
        near = close_to(spec.kind, kinds)
        yield Problem("", shown("", spec.kind), f"is no policy of {layer}", near)
        return
    known = options_of(layer, spec.kind)
    unknown = [name for name in spec.options if name not in known]
    for name in unknown:
        cause = close_to(name, known) if known else "it has none"
        rule = f"is no option of {spec.kind}"
        yield Problem(name, shown(name, spec.options[name]), rule, cause)
    if not unknown and (args or layer != "allocation"):
        try:
            make(layer, spec, *args)
        except ConfigError as error:  # policies check their own options
            if isinstance(error.__cause__, BrokenRules):
                for name, value, rule in error.__cause__.broken:
                    yield Problem(name, shown(name, value), rule)
            else:
                yield Problem("", "", str(error.__cause__ or error))


AllocationPolicy = Annotated[PolicySpec, PolicyOf("allocation")]
OrderingPolicy = Annotated[PolicySpec, PolicyOf("ordering")]
OverloadPolicy = Annotated[PolicySpec, PolicyOf("overload")]
CapacityPolicy = Annotated[PolicySpec, PolicyOf("capacity")]

"""What the code imports is what the extras bring, no more and no less."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

IMPLIED = {
    "httpx",  # a transport for it imports what the caller's SDK already brought
    "pydantic_core",  # pydantic pins it, and says to import its errors and schemas from there
    # Used where they happen to be installed, each with a fallback that is tested.
    "opentelemetry",  # three packages in one name space
    "lightgbm",
    "tiktoken",
}
NOT_IMPORTED_BY_NAME = {
    "uvloop",  # named to asyncio
    "opentelemetry_api",  # imported as `opentelemetry`, as is the SDK
    "opentelemetry_sdk",
    "opentelemetry_exporter_otlp_proto_http",  # found by its entry point, as the variables name it
    "openai",  # the demo runs the SDK in a process of its own
    "anthropic",
    "backports.zstd",  # by name in wire/encoding: part of Python from 3.14 on
    "brotli",  # likewise, where it can be bounded
}


def imported(place: Path) -> set[str]:
    found: set[str] = set()
    for file in [place] if place.is_file() else place.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"penstock"}


def declared(root: Path) -> set[str]:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {k: v for k, v in project["optional-dependencies"].items() if k not in ("all", "dev")}
    assert project["dependencies"] == []
    return {
        re.split(r"[\[<>=;! ]", line, maxsplit=1)[0].replace("-", "_")
        for lines in extras.values()
        for line in lines
    }


def test_every_import_comes_with_an_extra(root: Path) -> None:
    assert imported(root / "src") - declared(root) - IMPLIED == set()


def test_every_declared_package_is_used(root: Path) -> None:
    assert declared(root) - imported(root / "src") - NOT_IMPORTED_BY_NAME == set()


@pytest.mark.parametrize("layer", ["errors.py", "core", "policies", "metrics.py"])
def test_the_pure_rings_need_the_standard_library_only(root: Path, layer: str) -> None:
    assert imported(root / "src" / "penstock" / layer) == set()

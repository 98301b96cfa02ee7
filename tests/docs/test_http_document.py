"""docs/http-api.md against the OpenAPI document: routes, statuses, codes and parameters."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from fastapi import FastAPI

from pipeline.api import openapi
from pipeline.api.application import create_api
from pipeline.api.dependencies import ApiDependencies
from pipeline.settings import Settings
from schemas.http_answers import RUNS_PATH

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
NOT_TOLD = {"CLIENT_GONE", "CONFLICT", "RISK_RED"}
"""Codes of the source that no client hears: nobody is there, a default, a block_reason."""
SAID_BY_STATUS = {"ACCEPTED"}
"""No error, but the status of a 202."""

_HEADING = re.compile(r"^(#+) (.*)$", re.MULTILINE)
_ROUTE = re.compile(r"(GET|POST|PUT) /\S*")
_CODE = re.compile(r"[A-Z]+(?:_[A-Z]+)*")


def sections() -> Iterator[tuple[str, str]]:
    """Yield every heading and what stands between it and the next."""
    found = list(_HEADING.finditer(TEXT))
    ends = [each.start() for each in found[1:]] + [len(TEXT)]
    for each, end in zip(found, ends, strict=True):
        yield each[2], TEXT[each.end() : end]


SECTIONS = dict(sections())


def tables(text: str) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield the first heading and the rows of each table."""
    for found in re.finditer(r"^\|([^\n]*)\|\n\|[-| ]*\n((?:\|[^\n]*\n)*)", text, re.MULTILINE):
        rows = [line.strip("|").split("|") for line in found[2].splitlines()]
        yield found[1].split("|")[0].strip(), [[cell.strip() for cell in row] for row in rows]


def codes_below(heading: str) -> dict[int, set[str]]:
    found = dict(tables(SECTIONS[heading]))["status"]
    return {int(row[0]): set(_CODE.findall(row[1])) for row in found}


def documented_codes(name: str) -> dict[int, set[str]]:
    """Return what a route may answer, those that every route may included."""
    codes = codes_below(name)
    if RUNS_PATH in name:
        for status, common in codes_below("Routes").items():
            codes[status] = codes.get(status, set()) | common
    return codes


@cache
def operations() -> dict[str, dict[str, Any]]:
    deps = cast(ApiDependencies, SimpleNamespace(settings=Settings()))
    app = cast(FastAPI, create_api(deps, None).app)
    paths = openapi.document(app, "/")["paths"]
    return {
        f"{method.upper()} {path}": operation
        for path, methods in paths.items()
        for method, operation in methods.items()
    }


def test_every_route_is_described_and_no_other() -> None:
    assert {name for name in SECTIONS if _ROUTE.fullmatch(name)} == operations().keys()


def test_the_statuses_of_a_route_are_those_of_openapi() -> None:
    assert {name: set(documented_codes(name)) for name in operations()} == {
        name: {int(status) for status in operation["responses"]}
        for name, operation in operations().items()
    }


def test_the_codes_of_openapi_are_described() -> None:
    examples = [
        (name, int(status), example["error"])
        for name, operation in operations().items()
        for status, response in operation["responses"].items()
        for media in response.get("content", {}).values()
        if RUNS_PATH in name and "error" in (example := media.get("example", {}))
    ]
    assert len(examples) > 50
    described = {name: documented_codes(name) for name in operations()}
    assert [each for each in examples if each[2] not in described[each[0]][each[1]]] == []


def test_the_parameters_of_a_query_are_those_of_openapi() -> None:
    parameters = {
        name: {each["name"] for each in operation.get("parameters", []) if each["in"] == "query"}
        for name, operation in operations().items()
    }
    assert {
        name: {row[0] for row in dict(tables(SECTIONS[name])).get("parameter", [])}
        for name in operations()
    } == parameters


def test_the_table_of_codes_has_each_once_with_the_statuses_of_the_routes() -> None:
    rows = dict(tables(SECTIONS["Errors"]))["code"]
    table = {row[0].strip("`"): int(row[1]) for row in rows}
    assert len(table) == len(rows)
    of_routes = {
        (code, status)
        for name in operations()
        for status, codes in documented_codes(name).items()
        for code in codes - SAID_BY_STATUS
    }
    # Of a path that no route has.
    assert set(table.items()) == of_routes | {("METHOD_NOT_ALLOWED", 405)}


def test_the_codes_are_those_of_the_source() -> None:
    rows = dict(tables(SECTIONS["Errors"]))["code"]
    described = {row[0].strip("`") for row in rows}
    source = set(codes_of_the_source())
    assert described <= source
    # One word alone is as often something else: a method, a status, a name.
    assert {code for code in source if "_" in code} - NOT_TOLD <= described


def codes_of_the_source() -> Iterator[str]:
    for path in [
        *(ROOT / "pipeline/api").rglob("*.py"),
        *(ROOT / "pipeline/storage").rglob("*.py"),
    ]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            # Errors of the store begin with their code; those of the API are the code alone.
            code, separator, _ = node.value.partition(": ")
            is_code = _CODE.fullmatch(code)
            if is_code and (separator or (ROOT / "pipeline/api") in path.parents):
                yield code


def test_every_route_of_the_original_is_in_the_table_of_changes() -> None:
    rows = dict(tables(SECTIONS["What changed against the original API"]))["route"]
    named = {row[0] for row in rows} - {"all"}
    assert len(named) == 9
    assert named <= operations().keys()
    assert all(len(row) == 4 for row in rows)

"""The AsyncAPI document is one: by the official parser, in Node."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from pipeline.app.asyncapi import asyncapi_document
from pipeline.settings import Settings

FOLDER = Path(__file__).with_name("asyncapi")
INFORMATION = 2
"""Severity of a remark; 0 is an error, 1 a warning."""

NO_NETWORK = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH")
DOCUMENTS = {
    "as exported": asyncapi_document(Settings()),
    "of a secured cluster": asyncapi_document(
        Settings(
            prefix="shop.eu",
            replication=3,
            request_retention_ms=86_400_000,
            bootstrap_servers="a.example:9093,b.example:9093",
            security_protocol="SASL_SSL",
        )
    ),
}


def changed(*path: str, to: object) -> dict[str, Any]:
    document = deepcopy(DOCUMENTS["as exported"])
    part: Any = document
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = to
    return document


WRONG = {
    "a message of another channel": changed(
        "operations",
        "send_runs_events",
        "messages",
        to=[{"$ref": "#/channels/runs.requests/messages/RunsRequests"}],
    ),
    "a binding of another type": changed(
        "channels", "runs.events", "bindings", "kafka", "partitions", to="12"
    ),
    "a payload that is no schema": changed(
        "components", "schemas", "rmos.run_event-1", "type", to="record"
    ),
}


@pytest.fixture(scope="module")
def found() -> Any:
    """Give what the parser found in each document."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: the parser of AsyncAPI runs in Node")
    with TemporaryDirectory(prefix="rmos-asyncapi-") as name:
        folder = Path(name)
        shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
        install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
        installed = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False)
        if installed.returncode and any(code in installed.stderr for code in NO_NETWORK):
            pytest.skip("npm does not reach its registry, which has the parser of AsyncAPI")
        assert installed.returncode == 0, installed.stderr
        parsed = subprocess.run(
            ["node", "check.mjs"],
            cwd=folder,
            input=json.dumps(DOCUMENTS | WRONG),
            capture_output=True,
            text=True,
            check=True,
        )
    return json.loads(parsed.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_parser_takes_the_document_without_error_or_warning(
    name: str, found: dict[str, Any]
) -> None:
    assert found[name]["parsed"]
    remarks = found[name]["diagnostics"]
    assert [each for each in remarks if each["severity"] < INFORMATION] == []
    # Version 3.1 adds nothing that is used here, and not every generator has it.
    assert {each["code"] for each in remarks} <= {"asyncapi-latest-version"}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_the_parser_refuses_a_wrong_document(name: str, found: dict[str, Any]) -> None:
    assert not found[name]["parsed"]


def keywords(node: Any) -> Iterator[str]:
    """Yield each keyword of a schema; the names of its properties and definitions are none."""
    if not isinstance(node, dict):
        return
    for name, part in node.items():
        yield name
        if name in {"properties", "$defs"}:
            parts = list(part.values())
        elif isinstance(part, list) and name not in {"enum", "required", "default", "const"}:
            parts = part
        else:
            parts = [part] if name not in {"const", "default"} else []
        for each in parts:
            yield from keywords(each)


def references_with_more(node: Any) -> Iterator[set[str]]:
    """Yield what stands beside each reference."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node.keys() - {"$ref"}
        for part in node.values():
            yield from references_with_more(part)
    elif isinstance(node, list):
        for part in node:
            yield from references_with_more(part)


NEWER_THAN_DRAFT_7 = {
    *(
        "$anchor",
        "$dynamicAnchor",
        "$dynamicRef",
        "$recursiveRef",
        "$vocabulary",
        "dependentRequired",
    ),
    *("dependentSchemas", "maxContains", "minContains", "prefixItems", "unevaluatedItems"),
    "unevaluatedProperties",
}


def test_payloads_mean_the_same_in_draft_7_which_asyncapi_reads_them_by() -> None:
    schemas = DOCUMENTS["as exported"]["components"]["schemas"]
    found = [keyword for schema in schemas.values() for keyword in keywords(schema)]
    assert {"pattern", "anyOf", "$ref"} <= set(found)
    assert NEWER_THAN_DRAFT_7.isdisjoint(found)
    # Draft 7 ignores whatever stands beside a reference.
    assert set().union(*references_with_more(schemas)) <= {"description"}

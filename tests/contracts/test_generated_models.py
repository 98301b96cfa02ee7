"""Models that `datamodel-code-generator` makes of our JSON Schemas read what is ours.

A consumer generates them, reads our messages with them, and must not be told that one is wrong.
"""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datamodel_code_generator import DataModelType, InputFileType, PythonVersion, generate
from pydantic import BaseModel, ValidationError

from pipeline.api.application import openapi_document
from schemas.export import FROZEN_FOLDER
from tests.contracts.golden_events import FILE
from tests.schemas.examples import good_and_bad

TAKEN_ALL_THE_SAME = {
    "rmos.run_request-1": {
        "reserved run_id",
        "run_id like a link",
        "run_id that ends like a link",
    },
    "rmos.advisory_request-1": {"two contents", "two other contents"},
    "rmos.audit_request-1": {
        "two scopes",
        "one for true",
        "no dates",
        "no run ids",
        "a run id that is none",
        "too many run ids",
    },
    "rmos.legacy_run-1": set(),
}
"""Wrong documents that generated models take: the generator knows neither `not` nor conditions
between fields, and drops the bounds of a list in one of several shapes."""


def _events(kind: str) -> dict[str, Any]:
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    return {name: json.loads(each["value"]) for name, each in kept.items() if name.startswith(kind)}


def _wrong(events: dict[str, Any]) -> dict[str, Any]:
    event = next(iter(events.values()))
    return {f"{name} of another type": event | {name: [[0]]} for name in event}


RUN_EVENTS, ADVISORY_EVENTS = _events("run"), _events("advisory")
EXAMPLES = good_and_bad() | {
    "rmos.run_event-1": (RUN_EVENTS, _wrong(RUN_EVENTS)),
    "rmos.advisory_event-1": (ADVISORY_EVENTS, _wrong(ADVISORY_EVENTS)),
}


def generated(source: Path, kind: InputFileType, folder: Path) -> Any:
    """Return the module of models that the generator makes of a file."""
    path = folder / f"models_of_{source.stem.replace('.', '_').replace('-', '_')}.py"
    generate(
        source,
        input_file_type=kind,
        output=path,
        output_model_type=DataModelType.PydanticV2BaseModel,
        target_python_version=PythonVersion.PY_311,
        formatters=[],
    )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # Where pydantic looks for the names in annotations.
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[path.stem]
    return module


def takes(model: type[BaseModel], value: object) -> bool:
    try:
        model.model_validate_json(json.dumps(value), strict=True)
    except ValidationError:
        return False
    return True


def test_every_frozen_schema_has_examples() -> None:
    assert EXAMPLES.keys() == {path.stem for path in FROZEN_FOLDER.iterdir()}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_generated_model_reads_what_is_ours_and_refuses_what_is_wrong(
    name: str, tmp_path: Path
) -> None:
    module = generated(FROZEN_FOLDER / f"{name}.json", InputFileType.JsonSchema, tmp_path)
    model = getattr(module, "".join(part.capitalize() for part in _words(name)))
    good, bad = EXAMPLES[name]
    assert [each for each, value in good.items() if not takes(model, value)] == []
    taken = {each for each, value in bad.items() if takes(model, value)}
    assert taken == TAKEN_ALL_THE_SAME.get(name, set())


def _words(name: str) -> list[str]:
    return name.replace("-", ".").replace("_", ".").split(".")


def _json_contents(document: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield where, the name of the shape, and the example of every body that has both."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts = {"body": operation.get("requestBody", {}), **operation["responses"]}
            for part, described in parts.items():
                content = described.get("content", {}).get("application/json", {})
                reference = content.get("schema", {}).get("$ref")
                if reference is not None and "example" in content:
                    where = f"{method} {path} {part}"
                    yield where, reference.rpartition("/")[2], content["example"]


def test_models_of_the_openapi_document_read_its_examples(tmp_path: Path) -> None:
    document = openapi_document("http://127.0.0.1:8080")
    source = tmp_path / "openapi.json"
    source.write_text(json.dumps(document), encoding="utf-8")
    module = generated(source, InputFileType.OpenAPI, tmp_path)
    found = list(_json_contents(document))
    assert len(found) > 80
    refused = [
        where for where, shape, example in found if not takes(getattr(module, shape), example)
    ]
    assert refused == []

"""The OpenAPI document is one: by its validator, and by the examples in it."""

from functools import cache
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError

from pipeline.api.application import openapi_document


@cache
def document() -> dict[str, Any]:
    return openapi_document("http://127.0.0.1:8080")


def test_the_validator_of_openapi_3_1_finds_no_fault() -> None:
    assert document()["openapi"].startswith("3.1.")
    assert [str(error) for error in OpenAPIV31SpecValidator(document()).iter_errors()] == []


@pytest.mark.parametrize(
    "change",
    [
        {"info": {"title": "without a version"}},
        {"paths": {"runs": {}}},
        {"paths": {"/a/{b}": {"get": {"responses": {"200": {"description": "b is nowhere"}}}}}},
    ],
)
def test_the_validator_finds_a_fault(change: dict[str, Any]) -> None:
    with pytest.raises(OpenAPIValidationError):
        OpenAPIV31SpecValidator(document() | change).validate()


def test_every_example_fits_its_schema() -> None:
    checked, wrong = 0, []
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            parts = {"body": operation.get("requestBody", {}), **operation["responses"]}
            for name, part in parts.items():
                content = part.get("content", {}).get("application/json", {})
                if "example" not in content:
                    continue
                schema = content["schema"] | {"components": document()["components"]}
                errors = Draft202012Validator(schema).iter_errors(content["example"])
                checked += 1
                wrong += [f"{method} {path} {name}: {error.message}" for error in errors]
    assert checked > 80
    assert wrong == []


def test_every_example_of_a_parameter_fits() -> None:
    wrong = []
    for path, methods in document()["paths"].items():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                schema = parameter["schema"] | {"components": document()["components"]}
                given = parameter.get("example", schema.get("example"))
                if given is not None and not Draft202012Validator(schema).is_valid(given):
                    wrong.append(f"{path} {parameter['name']}")
    assert wrong == []

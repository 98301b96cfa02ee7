"""Tables of the documents, made from the program: `python -m tests.docs.tables` prints them."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from annotated_types import Ge, Gt, Le
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BeforeValidator, SecretStr
from pydantic.fields import FieldInfo

from pipeline import metrics
from pipeline.audit.rules.finding import MEANINGS
from pipeline.broker.admin.topic_promises import RULES, Consequence
from pipeline.cli.commands import COMMANDS, imported
from pipeline.consumers.engine.readiness import KINDS
from pipeline.settings import Settings, meaning_of

_WORDS = {
    Consequence.STOPS: "does not start, and stops",
    Consequence.REFUSED: "does not start; running, it is not ready",
    Consequence.REPORTED: "is not ready and goes on",
    Consequence.LOGGED: "logs it",
}


def markdown_table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(headings)
    lines = [heads, ["---"] * len(heads), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def settings_table() -> str:
    """Return the table of every setting, in the order of its class."""
    return markdown_table(
        ("setting", "default", "values", "meaning"),
        (
            (f"`RMOS_{name.upper()}`", _default(field), _values(field), meaning_of(name))
            for name, field in Settings.model_fields.items()
        ),
    )


def metrics_table() -> str:
    """Return the table of every metric, in the order of its module."""
    return markdown_table(
        ("metric", "kind", "labels", "meaning"),
        (
            (
                f"`{_exposed_name(found)}`",
                str(found._type),
                ", ".join(found._labelnames),
                found._documentation,
            )
            for found in vars(metrics).values()
            if isinstance(found, MetricWrapperBase)
        ),
    )


def promises_table() -> str:
    """Return the table of what rests on the settings of topics, in the order of its module."""
    return markdown_table(
        ("setting", "is", "of", "a worker", "because"),
        (
            (f"`{rule.setting}`", rule.when, rule.topics, _WORDS[rule.consequence], rule.promise)
            for rule in RULES
        ),
    )


def reasons_table() -> str:
    """Return the table of why a worker may not be ready although it polls."""
    return markdown_table(
        ("kind", "cause"), ((f"`{kind}`", meaning) for kind, meaning in KINDS.items())
    )


def commands_table() -> str:
    """Return the table of every command, with the first paragraph of its help."""
    return markdown_table(
        ("command", "does"),
        (
            (f"`{name}`", _first_paragraph(command))
            for word in COMMANDS
            for name, command in _walk(f"rmos {word}", imported(word))
        ),
    )


def _walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    choices = getattr(command, "commands", None)
    if choices is None:
        yield name, command
        return
    for word, each in choices.items():
        # Former names of commands are not offered.
        if not each.hidden:
            yield from _walk(f"{name} {word}", each)


def _first_paragraph(command: Any) -> str:
    return " ".join((command.help or "").split("\n\n")[0].split())


def audit_codes_table() -> str:
    """Return the table of what an audit can find, in the order of its module."""
    return markdown_table(
        ("code", "severity", "fails", "meaning"),
        (
            (
                f"`{code}`",
                each.severity,
                each.verdict.name if each.verdict else "-",
                each.meaning,
            )
            for code, each in MEANINGS.items()
        ),
    )


def _exposed_name(metric: MetricWrapperBase) -> str:
    return f"{metric._name}_total" if metric._type == "counter" else metric._name


def _default(field: FieldInfo) -> str:
    if field.default is None or field.default == ():
        return "unset"
    if isinstance(field.default, tuple):
        return f"`{json.dumps(field.default)}`"
    return f"`{str(field.default).lower() if field.default is True else field.default}`"


def _values(field: FieldInfo) -> str:
    if any(isinstance(each, BeforeValidator) for each in field.metadata):
        return "list with commas"
    if isinstance(field.default, tuple):
        return f"JSON list of {len(field.default)} numbers"
    kinds = [kind for kind in get_args(field.annotation) if kind is not type(None)]
    choices = [kind for kind in kinds if isinstance(kind, str)]
    if choices:
        return ", ".join(choices)
    found = [_limit(limit) for limit in field.metadata]
    words = [_word(field.annotation, kinds), *filter(None, found)]
    return " ".join(words)


def _word(annotation: Any, kinds: list[Any]) -> str:
    kind = kinds[0] if get_origin(annotation) is not None or kinds else annotation
    words = {
        Path: "path",
        SecretStr: "secret text",
        str: "text",
        bool: "true or false",
        int: "integer",
        float: "number",
    }
    return words[kind]


def _limit(limit: object) -> str:
    if isinstance(limit, Ge):
        return f"from {limit.ge}"
    if isinstance(limit, Gt):
        return f"above {limit.gt}"
    if isinstance(limit, Le):
        return f"to {limit.le}"
    pattern = getattr(limit, "pattern", None)
    return f"`{pattern}`" if pattern else ""


if __name__ == "__main__":
    print(settings_table())
    print(metrics_table())
    print(reasons_table())
    print(promises_table())
    print(commands_table())
    print(audit_codes_table())

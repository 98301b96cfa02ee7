"""`docs/alerts.yaml`: what it asks for is measured, and what it says leads to a drill."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from pipeline import metrics
from tests.docs.tables import _exposed_name
from tests.docs.test_documents import anchors_of, rows_of, section, text_of

DOCS = Path(__file__).resolve().parents[2] / "docs"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((DOCS / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
OWN = {
    _exposed_name(each): set(each._labelnames)
    for each in vars(metrics).values()
    if isinstance(each, MetricWrapperBase)
}
OTHERS = {
    "up": {"job"},
    **{
        f"node_filesystem_{name}": {"mountpoint"}
        for name in ("avail_bytes", "size_bytes", "files_free", "files")
    },
}
"""What Prometheus itself and its exporter of machines measure."""

_FUNCTIONS = {"increase", "sum", "absent", "max", "time"}
_WORDS = {"or", "unless", "offset", "by"}
_SELECTOR = re.compile(r"([a-z_]+)(?:\{([^}]*)\})?(\[\d+[smh]\])?")
_TEXT = re.compile(r'"[^"]*"')
_DURATION = re.compile(r"\d+[smh]")

by_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])


def selectors(expression: str) -> list[tuple[str, set[str], bool]]:
    """Return each metric with the labels that are asked for, and whether a range is taken."""
    text = re.sub(r"by \([a-z_, ]*\)", "", re.sub(r"offset \d+[smh]", "", expression))
    return [
        (found[1], set(re.findall(r"([a-z_]+)=?[=~]", found[2] or "")), found[3] is not None)
        for found in _SELECTOR.finditer(_TEXT.sub("", text).replace("=~", "="))
        if found[1] not in _FUNCTIONS | _WORDS
    ]


@by_rule
def test_a_rule_asks_for_metrics_and_labels_that_are_there(rule: dict[str, Any]) -> None:
    known = OWN | OTHERS
    found = selectors(rule["expr"])
    assert found
    for name, labels, _ in found:
        assert name in known, name
        assert labels <= known[name], (name, labels)


@by_rule
def test_a_rule_is_whole(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert "for" not in rule or _DURATION.fullmatch(rule["for"])
    bare = _TEXT.sub("", rule["expr"])
    for opening, closing in ("()", "{}", "[]"):
        assert bare.count(opening) == bare.count(closing)
    # A counter is looked at by its increase, or by whether it is new.
    for name, _, is_range in selectors(rule["expr"]):
        assert is_range or not name.endswith("_total") or f"{name}" in _new_series(rule["expr"])


def _new_series(expression: str) -> str:
    return "".join(re.findall(r"\(([a-z_]+[^()]* unless [^()]* offset \d+[smh])\)", expression))


@by_rule
def test_a_rule_leads_to_a_drill(rule: dict[str, Any]) -> None:
    path, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert anchor in anchors_of(DOCS / path)


def test_the_first_of_its_kind_is_no_secret() -> None:
    # What happens once must be seen by itself, as `increase` cannot.
    for rule in RULES:
        if re.search(r"increase\([^)]*\) > 0", rule["expr"]) and "unreadable" not in rule["expr"]:
            assert " unless " in rule["expr"], rule["alert"]


def test_the_table_of_alarms_is_that_of_the_rules() -> None:
    rows = rows_of(section(text_of("operations.md"), "Alarms"))
    assert [(row[0].strip("`"), row[2], re.findall(r"\(([^)]*)\)", row[3])[0]) for row in rows] == [
        (
            rule["alert"],
            {"page": "wake somebody", "ticket": "in the morning"}[rule["labels"]["severity"]],
            rule["annotations"]["runbook"].removeprefix("operations.md"),
        )
        for rule in RULES
    ]

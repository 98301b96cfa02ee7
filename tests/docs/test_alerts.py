"""`docs/alerts.yaml`: what it asks for is measured, and what it says leads to a drill."""

import re
from collections.abc import Iterator
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


def selectors(expression: str) -> list[tuple[str, set[str], bool]]:
    """Return each metric with the labels that are asked for, and whether a range is taken."""
    text = re.sub(r"by \([a-z_, ]*\)", "", re.sub(r"offset \d+[smh]", "", expression))
    return [
        (found[1], set(re.findall(r"([a-z_]+)=?[=~]", found[2] or "")), found[3] is not None)
        for found in _SELECTOR.finditer(_TEXT.sub("", text).replace("=~", "="))
        if found[1] not in _FUNCTIONS | _WORDS
    ]


def test_a_rule_asks_for_metrics_and_labels_that_are_there() -> None:
    known = OWN | OTHERS
    assert [rule["alert"] for rule in RULES if not selectors(rule["expr"])] == []
    assert [
        (rule["alert"], name, labels)
        for rule in RULES
        for name, labels, _ in selectors(rule["expr"])
        if name not in known or not labels <= known[name]
    ] == []


def test_a_rule_is_whole() -> None:
    assert [(rule["alert"], fault) for rule in RULES for fault in rule_faults(rule)] == []


def rule_faults(rule: dict[str, Any]) -> Iterator[str]:
    yield from set(rule) - {"alert", "expr", "for", "labels", "annotations"}
    if rule["labels"]["severity"] not in {"page", "ticket"}:
        yield "severity"
    if "for" in rule and not _DURATION.fullmatch(rule["for"]):
        yield "for"
    bare = _TEXT.sub("", rule["expr"])
    for opening, closing in ("()", "{}", "[]"):
        if bare.count(opening) != bare.count(closing):
            yield opening
    # A counter is looked at by its increase, or by whether it is new.
    for name, _, is_range in selectors(rule["expr"]):
        if name.endswith("_total") and not is_range and name not in _new_series(rule["expr"]):
            yield name


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"more": 1}, "more"),
        ({"labels": {"severity": "none"}}, "severity"),
        ({"for": "5 m"}, "for"),
        ({"expr": "sum(up"}, "("),
        ({"expr": "rmos_records_total > 0"}, "rmos_records_total"),
    ],
)
def test_a_rule_that_is_not_whole_is_found(change: dict[str, Any], fault: str) -> None:
    assert list(rule_faults(RULES[0] | change)) == [fault]


def _new_series(expression: str) -> str:
    return "".join(re.findall(r"\(([a-z_]+[^()]* unless [^()]* offset \d+[smh])\)", expression))


def test_a_rule_leads_to_a_drill() -> None:
    led = [(rule["alert"], *rule["annotations"]["runbook"].split("#")) for rule in RULES]
    assert [each for each in led if each[2] not in anchors_of(DOCS / each[1])] == []


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
            {"page": "at once", "ticket": "next working day"}[rule["labels"]["severity"]],
            rule["annotations"]["runbook"].removeprefix("operations.md"),
        )
        for rule in RULES
    ]

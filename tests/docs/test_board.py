"""`docs/grafana/rmos.json`: a whole board, in the order of the runbook, over metrics that exist."""

import json
import re
from typing import Any

from tests.docs.test_alerts import DOCS, OTHERS, OWN
from tests.docs.test_documents import anchors_of

BOARD: dict[str, Any] = json.loads((DOCS / "grafana/rmos.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = BOARD["panels"]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}

_RUNBOOK = re.compile(r" Runbook: docs/(\S+)#(\S+)$")
_METRIC = re.compile(r"\b((?:rmos|node)_[a-z_]+|up\b)")


def expressions() -> list[tuple[str, str]]:
    """Return each expression of the board, with the title of its panel."""
    return [(panel["title"], each["expr"]) for panel in PANELS for each in panel["targets"]]


def test_the_data_source_is_a_choice_of_who_opens_the_board() -> None:
    variables = {each["name"]: each for each in BOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    for panel in PANELS:
        assert panel["datasource"] == SOURCE
        assert all(each["datasource"] == SOURCE for each in panel["targets"]), panel["title"]
    used = set(re.findall(r"\$\{?([a-z]+)", json.dumps(PANELS)))
    assert used == set(variables)


def test_every_panel_has_a_place_and_an_id_of_its_own() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    places = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in PANELS
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) < 24  # the columns of a board
    for panel in PANELS:
        references = [each["refId"] for each in panel["targets"]]
        assert references
        assert len(set(references)) == len(references)


def test_a_panel_leads_to_the_runbook_and_they_come_in_its_order() -> None:
    led = [_RUNBOOK.search(panel["description"]) for panel in PANELS]
    assert None not in led
    places = [(found[1], found[2]) for found in led if found]
    assert [each for each in places if each[1] not in anchors_of(DOCS / each[0])] == []
    drills = [name for name, _ in places if name.startswith("runbook/")]
    order = ["runbook/store.md", "runbook/broker.md", "runbook/records.md", "runbook/api.md"]
    assert sorted(drills, key=order.index) == drills
    assert set(drills) == set(order)


def test_an_expression_asks_for_metrics_that_are_there() -> None:
    known = OWN.keys() | OTHERS.keys()
    assert [
        (title, name)
        for title, expression in expressions()
        for name in _METRIC.findall(expression)
        if name not in known and re.sub(r"_(bucket|sum|count)$", "", name) not in known
    ] == []
    assert [title for title, expression in expressions() if not _METRIC.search(expression)] == []

"""The chapter of the run requests: publish each, and show what became of it."""

from rich.table import Table
from rich.text import Text

from pipeline.broker.publisher import RunPublisher
from pipeline.cli.demo.requests import DemoRequest, demo_requests
from pipeline.cli.demo.screen import WIDTH, Screen
from pipeline.core.visible_text import visible
from schemas.run_event import RunEvent

_STATUS_STYLES = {"OK": "green", "BLOCKED": "red", "ERROR": "red"}


async def show_outcomes(publisher: RunPublisher, screen: Screen) -> list[RunEvent]:
    """Publish the requests one after the other; return their events in this order.

    Raises:
        BrokerError: One was not judged in time.
    """
    screen.chapter("A CAM system publishes eight requests; what became of each")
    events = []
    table = Table("request", "outcome", "status", "may cut", "why", width=WIDTH)
    for request in demo_requests():
        receipt = await publisher.send_raw(request.key, request.value)
        event = await receipt.event()
        events.append(event)
        table.add_row(*_row(request, event))
    screen.table(table)
    return events


def _row(request: DemoRequest, event: RunEvent) -> list[str | Text]:
    style = _STATUS_STYLES.get(event.status or "", "red")
    why = event.error.code if event.error is not None else event.block_reason or ""
    return [
        request.title,
        event.outcome,
        Text(event.status or "-", style),
        Text("yes", "bold green") if event.may_cut else "no",
        Text(visible(why)),
    ]

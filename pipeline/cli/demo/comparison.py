"""The chapter of the diff: how one run differs from another."""

from pipeline.cli.demo.http import DemoApi
from pipeline.cli.views.diff import print_diff
from schemas.run_event import RunEvent


async def show_comparison(a: RunEvent, b: RunEvent, api: DemoApi) -> None:
    """Print how run `b` differs from run `a`.

    Raises:
        ServiceError: The API said something else.
    """
    screen = api.screen
    screen.chapter("Two runs compared: GREEN and YELLOW")
    found = await api.get(f"/diff?a={a.run_id}&b={b.run_id}")
    print_diff(found.document, screen.console)

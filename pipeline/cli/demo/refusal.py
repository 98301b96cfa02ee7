"""The chapter of the refused POST: 409 for the client, and the artifact is kept all the same."""

from pathlib import Path

from pipeline.cli.demo.http import DemoApi
from pipeline.cli.demo.requests import red_request
from pipeline.errors import IntegrityError


async def show_refusal(root: Path, api: DemoApi) -> None:
    """POST a RED request, and look at what is left of it.

    Raises:
        IntegrityError: It was refused and not kept.
        ServiceError: The API said something else.
    """
    screen = api.screen
    screen.chapter("A RED request over HTTP: refused, and kept all the same")
    refused = (await api.post(red_request("run_demo_http"), expected=409)).document
    screen.line(f"  {refused['error']}: {refused['message']}")
    screen.line(f"  may_cut: {str(refused['may_cut']).lower()}")
    path = root / refused["artifact_path"]
    if not path.is_file():
        message = f"{refused['artifact_path']} is not there."
        raise IntegrityError(message)
    screen.line(f"  kept: {path.stat().st_size:,} bytes, {refused['artifact_path']}")

"""The chapter of the attachments: verified, one byte flipped on the disk, verified again."""

from pathlib import Path
from typing import Any

from pipeline.cli.demo.http import DemoApi
from pipeline.core.layout import attachment_path
from pipeline.errors import IntegrityError
from schemas.run_event import RunEvent


async def show_verification(root: Path, run: RunEvent, api: DemoApi) -> Path:
    """Let the API read an attachment before and after somebody changed it; return its path.

    Raises:
        IntegrityError: The changed byte was not found, or one that nobody changed was.
        ServiceError: The API said something else.
    """
    screen = api.screen
    screen.chapter("One byte of an attachment is flipped on the disk, and found")
    before = await _verified(run, api, expected=True)
    path = attachment_path(before["sha256"])
    _flip_last_byte(root / path)
    screen.note(f"chmod u+w, one bit of the last byte flipped, chmod u-w: {path[:36]}...")
    after = await _verified(run, api, expected=False)
    screen.line(f"  expected {after['sha256']}")
    screen.line(f"  found    {after['actual_sha256']}")
    return Path(path)


async def _verified(run: RunEvent, api: DemoApi, *, expected: bool) -> dict[str, Any]:
    document = (await api.get(f"/{run.run_id}/attachments/verify")).document
    verification = document["verification"]
    result: dict[str, Any] = verification["results"][0]
    found = result["error"] or "as it was written"
    style = "green" if verification["ok"] else "bold red"
    api.screen.line(f"  {result['filename']}, {result['size_bytes']:,} bytes: {found}", style)
    if verification["ok"] is not expected:
        message = f"{result['filename']}: expected ok to be {expected}."
        raise IntegrityError(message)
    return result


def _flip_last_byte(path: Path) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    path.chmod(0o444)

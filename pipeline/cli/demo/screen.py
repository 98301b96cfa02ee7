"""What the demo prints, and in which form.

The API as the demo asks it: with the client of the standard library, as any program may.
"""

import asyncio
import http.client
import json
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.cli.views.terminal import print_styled
from pipeline.core.visible_text import visible, visible_json
from pipeline.errors import ServiceError
from schemas.http_answers import RUNS_PATH

WIDTH = 100


class Screen:
    """Numbered chapters on standard output."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, width=WIDTH)
        self._chapters = 0

    def chapter(self, title: str) -> None:
        """Begin the next chapter."""
        self._chapters += 1
        self.line("")
        self.line(f"{self._chapters}. {title}", "bold")

    def line(self, text: str, style: str = "") -> None:
        """Print one line, whole also where it is longer than the screen."""
        print_styled(Text(visible(text), style), self.console)

    def note(self, text: str) -> None:
        """Print what is being done."""
        self.line(f"  {text}", "dim")

    def command(self, text: str) -> None:
        """Print what is run."""
        self.line(f"  $ {text}", "bold")

    def table(self, table: Table) -> None:
        """Print a table, whose cells are visible already."""
        self.console.print(table)

    def document(self, document: Any) -> None:  # noqa: ANN401
        """Print a JSON document."""
        text = json.dumps(document, indent=2, ensure_ascii=False)
        self.console.print(Text(visible_json(text), "dim"))


_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the API."""

    status: int
    document: dict[str, Any]


class DemoApi:
    """Asks the API, and shows each question with the status of its answer."""

    def __init__(self, address: str, screen: Screen) -> None:
        self.screen = screen
        self._address = address

    async def get(self, path: str) -> Answer:
        """GET a path below that of the runs."""
        return await self._ask("GET", path, None, expected=200)

    async def post(self, request: dict[str, Any], *, expected: int) -> Answer:
        """POST a run request.

        Raises:
            ServiceError: The answer has another status than `expected`.
        """
        return await self._ask("POST", "", json.dumps(request).encode(), expected=expected)

    async def _ask(self, method: str, path: str, body: bytes | None, *, expected: int) -> Answer:
        status, content = await asyncio.to_thread(self._exchange, method, RUNS_PATH + path, body)
        if status != expected:
            message = f"Expected the status {expected} of {method} {path}, the API said {status}."
            raise ServiceError(message)
        told = f"{status} {http.client.responses[status]}"
        self.screen.line(f"  {method} {RUNS_PATH}{path}  ->  {told}", "bold")
        return Answer(status, json.loads(content))

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._address, timeout=_PATIENCE_SECONDS)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

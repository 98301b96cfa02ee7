"""The API as the demo asks it: with the client of the standard library, as any program may."""

import asyncio
import http.client
import json
from dataclasses import dataclass
from typing import Any

from pipeline.api.dependencies import PREFIX
from pipeline.cli.demo.screen import Screen
from pipeline.errors import ServiceError

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
        status, content = await asyncio.to_thread(self._exchange, method, PREFIX + path, body)
        if status != expected:
            message = f"Expected the status {expected} of {method} {path}, the API said {status}."
            raise ServiceError(message)
        told = f"{status} {http.client.responses[status]}"
        self.screen.line(f"  {method} {PREFIX}{path}  ->  {told}", "bold")
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

"""What is asked of a broker that is not ready yet."""

from typing import Any, cast

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import NodeNotReadyError

from pipeline.broker.admin import topics


class NotReady:
    """An admin client of a broker that names itself, and then a controller, a little later."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any] | Exception] = [
            NodeNotReadyError(
                "Attempt to send a request to node which is not ready (node id None)."
            ),
            {"controller_id": -1},
            {"controller_id": 1},
        ]

    async def describe_cluster(self) -> dict[str, Any]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_a_broker_that_goes_on_after_a_pause_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topics, "RETRY_SECONDS", 0)
    admin = NotReady()
    await topics.wait_for_controller(cast("AIOKafkaAdminClient", admin))
    assert admin.answers == []

"""How every client reaches the broker: its options, and what an unreachable one is called."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    RequestTimedOutError,
    StaleMetadata,
)
from aiokafka.helpers import create_ssl_context
from pydantic import SecretStr

from pipeline.errors import BrokerError, InputError
from pipeline.settings import Settings

ANSWER_TIMEOUT_SECONDS = 10.0
"""Longest wait for a broker to answer, once for connecting and once for each question."""

# OSError covers the time-outs of asyncio and what TLS refuses.
_UNREACHABLE = (
    KafkaConnectionError,
    KafkaTimeoutError,
    NodeNotReadyError,
    RequestTimedOutError,
    StaleMetadata,
    OSError,
)


def client_options(settings: Settings) -> dict[str, Any]:
    """Return the arguments that all clients of aiokafka take to reach the broker.

    Raises:
        InputError: The settings of SASL or TLS cannot be used.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "security_protocol": settings.security_protocol,
    }
    if settings.security_protocol.startswith("SASL"):
        options |= _sasl_options(settings)
    if settings.security_protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(settings)
    return options


async def describe_cluster(settings: Settings) -> str:
    """Return the cluster id that the broker tells.

    Raises:
        BrokerError: No broker answers within about 10 s.
    """
    async with admin_client(settings) as admin:
        cluster = await admin.describe_cluster()
    return str(cluster["cluster_id"])


@asynccontextmanager
async def admin_client(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Connect an admin client for the length of a block.

    Raises:
        BrokerError: No broker answers, or it refuses what the block asks.
    """
    timeout_ms = int(ANSWER_TIMEOUT_SECONDS * 1000)
    admin = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=timeout_ms)
    with broker_errors(settings):
        try:
            # Several servers share this time: it is the user who waits, not each of them.
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                await admin.start()
            yield admin
        finally:
            await admin.close()


@contextmanager
def broker_errors(settings: Settings) -> Iterator[None]:
    """Turn what aiokafka raises in a block into one sentence.

    Raises:
        BrokerError: No broker answers, or it refuses what the block asks.
    """
    try:
        yield
    except _UNREACHABLE as error:
        raise unreachable(settings) from error
    except KafkaError as error:
        message = f"The Kafka broker at {settings.bootstrap_servers} refused: {error}."
        raise BrokerError(message) from error


async def close_consumer(consumer: Any) -> None:  # noqa: ANN401 - aiokafka has no types
    """Stop a consumer, whether the broker still answers or not."""
    try:
        await consumer.stop()
    except asyncio.CancelledError:
        # Where a broker is gone, aiokafka's `stop` is ended by the cancellation of its own
        # fetch, and leaves the connections and the task that looks for new metadata.
        await consumer._client.close()


def unreachable(settings: Settings) -> BrokerError:
    """Say that no broker answers, and what to do."""
    return BrokerError(
        f"No Kafka broker answers at {settings.bootstrap_servers} "
        f"({settings.security_protocol}): start one with `rmos broker start`, "
        "or set RMOS_BOOTSTRAP_SERVERS."
    )


def _sasl_options(settings: Settings) -> dict[str, Any]:
    if settings.sasl_username is None or settings.sasl_password is None:
        message = (
            f"RMOS_SECURITY_PROTOCOL={settings.security_protocol} needs RMOS_SASL_USERNAME "
            "and RMOS_SASL_PASSWORD."
        )
        raise InputError(message)
    return {
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.sasl_password.get_secret_value(),
    }


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    # Without a password OpenSSL would ask for one at the terminal.
    password = settings.ssl_keyfile_password or SecretStr("")
    try:
        context: ssl.SSLContext = create_ssl_context(
            cafile=settings.ssl_cafile,
            certfile=settings.ssl_certfile,
            keyfile=settings.ssl_keyfile,
            password=password.get_secret_value(),
        )
    except (OSError, ValueError) as error:
        message = (
            "RMOS_SSL_CAFILE, RMOS_SSL_CERTFILE, RMOS_SSL_KEYFILE or its password cannot be "
            f"used: {error}."
        )
        raise InputError(message) from error
    return context

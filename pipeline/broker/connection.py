"""Connections of clients to the broker, with one sentence for each way in which they fail."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    RequestTimedOutError,
    StaleMetadata,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
from aiokafka.helpers import create_ssl_context
from aiokafka.protocol.metadata import MetadataRequest
from pydantic import SecretStr

from pipeline.broker.aiokafka_fixes.clients import ask, close_consumer
from pipeline.broker.local.folder import LocalFolder
from pipeline.broker.local.loopback import HOST
from pipeline.broker.reachability import why_unreachable
from pipeline.errors import BrokerError, InputError
from pipeline.settings import Settings

ANSWER_TIMEOUT_SECONDS = 10.0
"""Longest wait for a broker to answer, once for connecting and once for each question."""

ANSWER_TIMEOUT_MS = int(ANSWER_TIMEOUT_SECONDS * 1000)

BATCH_BYTES = 1024 * 1024
"""Size at which a batch is closed. A larger record goes alone: the broker's limit is a batch's."""

NAMES_SHOWN = 3

# OSError covers the time-outs of asyncio and what TLS refuses.
_UNREACHABLE = (
    KafkaConnectionError,
    KafkaTimeoutError,
    NodeNotReadyError,
    RequestTimedOutError,
    StaleMetadata,
    OSError,
)


_RIGHTS = {
    TopicAuthorizationFailedError: "the topic",
    GroupAuthorizationFailedError: "the consumer group",
    TransactionalIdAuthorizationFailed: "the transactional id",
    ClusterAuthorizationFailedError: "the cluster",
}
"""What a right that is missing is about."""


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
    """Return the cluster id of the broker.

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
    async with broker_errors(settings):
        admin = await start_admin(settings)
        try:
            yield admin
        finally:
            await admin.close()


async def start_admin(settings: Settings) -> AIOKafkaAdminClient:
    """Connect an admin client, which the caller closes; errors stay aiokafka's."""
    admin = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=ANSWER_TIMEOUT_MS)
    try:
        # Several servers share this time: it is the user who waits, not each of them.
        async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
            await admin.start()
    except BaseException:
        await admin.close()
        raise
    return admin


@asynccontextmanager
async def reader(
    settings: Settings,
    **options: Any,  # noqa: ANN401 - aiokafka has no types
) -> AsyncIterator[AIOKafkaConsumer]:
    """Connect a consumer without a group for the length of a block; see `connected_consumer`.

    Raises:
        BrokerError: No broker answers, or it refuses what the block asks.
    """
    async with broker_errors(settings), connected_consumer(settings, **options) as consumer:
        yield consumer


@asynccontextmanager
async def connected_consumer(
    settings: Settings,
    **options: Any,  # noqa: ANN401 - aiokafka has no types
) -> AsyncIterator[AIOKafkaConsumer]:
    """Connect a consumer of committed records for the length of a block; errors stay aiokafka's.

    Args:
        settings: How to reach the broker.
        options: More of aiokafka's own options.
    """
    consumer = AIOKafkaConsumer(
        **client_options(settings),
        **{"enable_auto_commit": False, "isolation_level": "read_committed"} | options,
    )
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
            await consumer.start()
        yield consumer
    finally:
        await close_consumer(consumer)


async def start_producer(settings: Settings, **options: Any) -> AIOKafkaProducer:  # noqa: ANN401
    """Connect an idempotent producer with acks=all and lz4.

    Args:
        settings: How to reach the broker.
        options: More of aiokafka's own options.

    Raises:
        BrokerError: No broker answers within about 10 s.
    """
    producer = AIOKafkaProducer(
        **client_options(settings),
        acks="all",
        enable_idempotence=True,
        compression_type="lz4",
        max_batch_size=BATCH_BYTES,
        **options,
    )
    async with broker_errors(settings):
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                await producer.start()
        except BaseException:
            await producer.stop()
            raise
    return producer


@asynccontextmanager
async def broker_errors(settings: Settings) -> AsyncIterator[None]:
    """Turn what aiokafka raises in a block into one sentence.

    Raises:
        BrokerError: No broker answers, or it refuses what the block asks.
    """
    try:
        yield
    except (KafkaError, OSError) as error:
        raise await broker_error(settings, error) from error


async def broker_error(settings: Settings, error: BaseException | None = None) -> BrokerError:
    """Return what `error` of aiokafka means; without one, why no broker answers."""
    if isinstance(error, KafkaError) and not isinstance(error, _UNREACHABLE):
        return refusal(settings, error)
    return await unreachable(settings) or BrokerError(
        f"The Kafka broker at {settings.bootstrap_servers} ({settings.security_protocol}) did not "
        "answer in time; it can be reached now."
    )


async def unreachable(settings: Settings) -> BrokerError | None:
    """Return why no broker can be used, asked anew; None where one can."""
    why = await why_unreachable(client_options(settings), is_ours=is_local(settings))
    return None if why is None else BrokerError(why)


def refusal(settings: Settings, error: KafkaError) -> BrokerError:
    """Return a sentence on what a broker refused, and which right is missing where it is one."""
    kind = next((kind for kind in _RIGHTS if isinstance(error, kind)), None)
    if kind is None:
        message = f"The Kafka broker at {settings.bootstrap_servers} refused: {error}."
        return BrokerError(message)
    names = sorted(_names(error))
    named = ", ".join(names[:NAMES_SHOWN])
    if len(names) > NAMES_SHOWN:
        named += f" and {len(names) - NAMES_SHOWN} more"
    user = settings.sasl_username or "this client, which gives no user name,"
    message = (
        f"The Kafka broker at {settings.bootstrap_servers} does not let {user} use "
        f"{_RIGHTS[kind]}{named and ' '}{named}: grant the rights that docs/messages.md lists "
        "(who may do what)."
    )
    return BrokerError(message)


async def refuse_hidden(admin: AIOKafkaAdminClient, missing: Sequence[str]) -> None:
    """Refuse topics that look as if they were missing only because this user may not see them.

    Raises:
        TopicAuthorizationFailedError: Some of `missing` are such topics.
    """
    if not missing:
        return
    request = MetadataRequest(list(missing), allow_auto_topic_creation=False)
    answer = (await ask(admin, request)).to_object()
    hidden = [
        topic["topic"]
        for topic in answer["topics"]
        if topic["error_code"] == TopicAuthorizationFailedError.errno
    ]
    if hidden:
        raise TopicAuthorizationFailedError(hidden)


def _names(error: KafkaError) -> set[str]:
    """Return the names that aiokafka gives with a missing right: one, a set, or none."""
    names: set[str] = set()
    for each in error.args:
        names |= {each} if isinstance(each, str) else {str(name) for name in each}
    return {name.removeprefix("group ") for name in names}


def is_local(settings: Settings) -> bool:
    """Return whether the broker is the one that `rmos broker start` starts with these settings."""
    last = LocalFolder(settings.data_dir / "kafka").remembered()
    ports = {settings.broker_port} if last is None else {settings.broker_port, last.port}
    names = {f"{host}:{port}" for host in (HOST, "localhost") for port in ports}
    return settings.security_protocol == "PLAINTEXT" and settings.bootstrap_servers in names


def read_secret(name: str, value: SecretStr | None, file: Path | None) -> str | None:
    """Return a secret that a setting has, or the file that another setting names.

    Raises:
        InputError: Both are set, or the file cannot be read.
    """
    if file is None:
        return None if value is None else value.get_secret_value()
    if value is not None:
        raise InputError(f"{name} and {name}_FILE are both set: unset one.")
    try:
        # An editor ends the line of a password.
        return file.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"{name}_FILE {file} cannot be read: {reason}.") from error


def _sasl_options(settings: Settings) -> dict[str, Any]:
    password = read_secret(
        "RMOS_SASL_PASSWORD", settings.sasl_password, settings.sasl_password_file
    )
    if settings.sasl_username is None or password is None:
        raise InputError(
            f"RMOS_SECURITY_PROTOCOL={settings.security_protocol} needs RMOS_SASL_USERNAME "
            "and RMOS_SASL_PASSWORD or RMOS_SASL_PASSWORD_FILE."
        )
    return {
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": password,
    }


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    # Without a password OpenSSL would ask for one at the terminal.
    password = read_secret(
        "RMOS_SSL_KEYFILE_PASSWORD",
        settings.ssl_keyfile_password,
        settings.ssl_keyfile_password_file,
    )
    try:
        context: ssl.SSLContext = create_ssl_context(
            cafile=settings.ssl_cafile,
            certfile=settings.ssl_certfile,
            keyfile=settings.ssl_keyfile,
            password=password or "",
        )
    except (OSError, ValueError) as error:
        raise InputError(
            "RMOS_SSL_CAFILE, RMOS_SSL_CERTFILE, RMOS_SSL_KEYFILE or its password cannot be "
            f"used: {error}."
        ) from error
    return context

"""Every reason for which there is no connection has its own sentence, with the address."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.app.doctor import Answer, examine
from pipeline.app.machine import State
from pipeline.broker import connection
from pipeline.broker.admin.topics import apply_topics, compare_topics
from pipeline.broker.connection import describe_cluster
from pipeline.broker.local.loopback import HOST
from pipeline.broker.publisher import RunPublisher
from pipeline.broker.sending.batches import BatchSender
from pipeline.errors import BrokerError
from pipeline.settings import Settings, read_settings
from tests.builders import run_request
from tests.e2e.kafka_reading import produce, sending, wait_until, wait_until_consumed
from tests.e2e.prepared_store import prepare_store
from tests.e2e.secured_broker import (
    ALL,
    GROUP,
    PASSWORD,
    READ,
    TOPIC,
    USER,
    WRITE,
    SecuredBroker,
    grant,
    lift,
    secured_broker,
)
from tests.e2e.worker_processes import WorkerPool, WorkerProcess, only_sentence

pytestmark = pytest.mark.e2e

SASL = {"sasl_username": USER, "sasl_password": PASSWORD, "sasl_mechanism": "PLAIN"}
CA = {"ssl_cafile": "authority"}
NO_CA = {"ssl_cafile": "other_authority"}
PLAINTEXT, TLS = {"security_protocol": "PLAINTEXT"}, {"security_protocol": "SSL", **CA}
SASL_PLAINTEXT = {"security_protocol": "SASL_PLAINTEXT", **SASL}
SASL_TLS = {"security_protocol": "SASL_SSL", **SASL, **CA}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    with secured_broker(tmp_path_factory.mktemp("secured")) as broker:
        yield broker


def settings_for(secured: SecuredBroker, listener: str, given: dict[str, str]) -> Settings:
    found: dict[str, Any] = dict(given)
    if "ssl_cafile" in found:
        found["ssl_cafile"] = getattr(secured, found["ssl_cafile"])
    return read_settings(bootstrap_servers=secured.addresses[listener], **found)


FAULTS = {
    "plain to TLS": ("TLS", PLAINTEXT, "speaks TLS, RMOS_SECURITY_PROTOCOL=PLAINTEXT does not"),
    "SASL to TLS": ("SASLTLS", SASL_PLAINTEXT, "speaks TLS, RMOS_SECURITY_PROTOCOL=SASL_PLAIN"),
    "TLS to plain": ("PLAINTEXT", TLS, "does not speak TLS, RMOS_SECURITY_PROTOCOL=SSL does"),
    "TLS to SASL": ("SASL", SASL_TLS, "does not speak TLS, RMOS_SECURITY_PROTOCOL=SASL_SSL does"),
    "other authority": ("TLS", TLS | NO_CA, "authority in RMOS_SSL_CAFILE"),
    "no authority": ("TLS", {"security_protocol": "SSL"}, "authority in RMOS_SSL_CAFILE"),
    "out of date": ("EXPIRED", TLS, "is out of date: the broker needs a new one"),
    "other host": ("OTHERHOST", TLS, "is of another host: use a name that stands in it"),
    "no client certificate": ("MUTUAL", TLS, "set RMOS_SSL_CERTFILE and RMOS_SSL_KEYFILE"),
    "wrong password": (
        "SASL",
        SASL_PLAINTEXT | {"sasl_password": "other"},
        f"refuses the user {USER} (PLAIN): RMOS_SASL_USERNAME or RMOS_SASL_PASSWORD is wrong",
    ),
    "wrong password in TLS": (
        "SASLTLS",
        SASL_TLS | {"sasl_password": "other"},
        f"refuses the user {USER} (PLAIN)",
    ),
    "unknown user": (
        "SCRAM",
        SASL_PLAINTEXT | {"sasl_mechanism": "SCRAM-SHA-256"},
        f"refuses the user {USER} (SCRAM-SHA-256)",
    ),
    "other mechanism": (
        "SASL",
        SASL_PLAINTEXT | {"sasl_mechanism": "SCRAM-SHA-512"},
        "does not take RMOS_SASL_MECHANISM=SCRAM-SHA-512; it takes PLAIN.",
    ),
    "no SASL": ("SASL", PLAINTEXT, "asks for SASL (PLAIN), RMOS_SECURITY_PROTOCOL=PLAINTEXT has"),
    "no SASL in TLS": ("SASLTLS", TLS, "asks for SASL (PLAIN), RMOS_SECURITY_PROTOCOL=SSL has"),
    "SASL to none": ("PLAINTEXT", SASL_PLAINTEXT, "takes no SASL"),
    "SASL to none in TLS": ("TLS", SASL_TLS, "takes no SASL"),
    "advertised name": (
        "NAMELESS",
        PLAINTEXT,
        "sends its clients on to broker.invalid:9092, which this machine does not reach "
        "(the name is unknown): set its advertised.listeners",
    ),
    "advertised address": (
        "NOBODY",
        PLAINTEXT,
        f"sends its clients on to {HOST}:1, which this machine does not reach "
        "(nothing listens there): set its advertised.listeners",
    ),
}


@pytest.mark.parametrize(("listener", "given", "said"), FAULTS.values(), ids=FAULTS.keys())
async def test_what_does_not_fit_is_named_with_the_address(
    secured: SecuredBroker, listener: str, given: dict[str, str], said: str
) -> None:
    settings = settings_for(secured, listener, given)
    with pytest.raises(BrokerError) as caught:
        await describe_cluster(settings)
    sentence = str(caught.value)
    assert said in sentence
    assert secured.addresses[listener] in sentence
    assert "rmos broker start" not in sentence


@pytest.mark.parametrize(
    ("listener", "given"),
    [("PLAINTEXT", PLAINTEXT), ("TLS", TLS), ("SASL", SASL_PLAINTEXT), ("SASLTLS", SASL_TLS)],
)
async def test_what_fits_is_a_connection(
    secured: SecuredBroker, listener: str, given: dict[str, str]
) -> None:
    settings = settings_for(secured, listener, given)
    assert await describe_cluster(settings) == secured.broker.cluster_id


async def test_publisher_and_sender_give_the_same_reason(secured: SecuredBroker) -> None:
    settings = settings_for(secured, "SASL", SASL_PLAINTEXT | {"sasl_password": "other"})
    for client in (RunPublisher(settings), BatchSender(settings)):
        with pytest.raises(BrokerError, match=f"refuses the user {USER}"):
            await client.start()
        await client.stop()


async def test_several_servers_have_a_sentence_each(secured: SecuredBroker) -> None:
    settings = read_settings(
        bootstrap_servers=f"{HOST}:1,{secured.addresses['TLS']},broker.invalid:9092"
    )
    with pytest.raises(BrokerError) as caught:
        await describe_cluster(settings)
    sentence = str(caught.value)
    assert f"{HOST}:1 (PLAINTEXT): nothing listens there" in sentence
    assert f"{secured.addresses['TLS']} speaks TLS" in sentence
    assert "broker.invalid:9092 (PLAINTEXT): the name is unknown" in sentence


async def test_something_that_takes_connections_and_is_silent_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "ANSWER_TIMEOUT_SECONDS", 0.5)
    with socket.create_server((HOST, 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(BrokerError, match=rf"{HOST}:{port} takes connections and does not"):
            await describe_cluster(read_settings(bootstrap_servers=f"{HOST}:{port}"))


async def test_the_local_broker_alone_is_one_to_start(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind((HOST, 0))
        port = nobody.getsockname()[1]
        for name, broker_port, is_ours in ((HOST, port, True), (HOST, 9092, False)):
            settings = read_settings(
                bootstrap_servers=f"{name}:{port}", broker_port=broker_port, data_dir=tmp_path
            )
            with pytest.raises(BrokerError) as caught:
                await describe_cluster(settings)
            assert ("rmos broker start" in str(caught.value)) is is_ours


@pytest.fixture
async def granted(secured: SecuredBroker, tmp_path: Path) -> tuple[Settings, Settings]:
    """Give the settings of an administrator and of a user who may do all in one prefix."""
    prefix = f"t{tmp_path.name[-20:].lower().replace('_', '-')}"
    folder = {"prefix": prefix, "data_dir": tmp_path / "store"}
    admin = settings_for(secured, "PLAINTEXT", PLAINTEXT).model_copy(update=folder)
    await apply_topics(admin)
    prepare_store(admin, secured.broker.cluster_id)
    for kind in (TOPIC, GROUP):
        await grant(admin, kind, prefix, ALL)
    user = settings_for(secured, "SASL", SASL_PLAINTEXT).model_copy(update=folder)

    async def is_granted() -> bool:
        with suppress(BrokerError):
            return await compare_topics(user) == []
        return False

    await wait_until(is_granted, "the rights")
    return admin, user


ENVIRONMENT = {
    "RMOS_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "RMOS_SASL_MECHANISM": "PLAIN",
    "RMOS_SASL_USERNAME": USER,
    "RMOS_SASL_PASSWORD": PASSWORD,
}


async def test_a_right_that_is_missing_at_the_start_is_no_missing_topic(
    granted: tuple[Settings, Settings], workers: WorkerPool
) -> None:
    admin, user = granted
    topic = user.topics.run_events
    await grant(admin, TOPIC, topic, ALL, denied=True)
    worker = workers.start(user, **ENVIRONMENT)
    assert await worker.ended() == 6
    said = only_sentence(worker.text)
    assert f"does not let {USER} use the topic {topic}: grant" in said
    assert "rmos topics apply" not in said


async def test_the_doctor_names_each_right_that_is_missing(
    granted: tuple[Settings, Settings],
) -> None:
    admin, user = granted
    names = user.topics

    async def rights() -> Answer:
        return {each.question: each async for each in examine(user)}["rights"]

    assert (await rights()).state is State.FINE
    await grant(admin, TOPIC, names.run_events, WRITE, denied=True)
    await grant(admin, GROUP, names.advise_group, READ, denied=True)
    missing = f"Write on topic {names.run_events}; Read on group {names.advise_group}."

    async def is_named() -> bool:
        found = await rights()
        return found.state is State.NOT_USABLE and missing in found.sentence

    await wait_until(is_named, "both rights")


async def test_a_publisher_without_the_right_to_write_says_so(
    granted: tuple[Settings, Settings],
) -> None:
    admin, user = granted
    async with RunPublisher(user) as publisher:
        await publisher.publish(run_request(run_id="run_0"))
        await grant(admin, TOPIC, user.topics.run_requests, 4, denied=True)
        with pytest.raises(BrokerError, match=rf"does not let {USER} use the topic"):
            await publisher.publish(run_request(run_id="run_1"))


@pytest.fixture
async def consuming(
    granted: tuple[Settings, Settings], workers: WorkerPool
) -> tuple[Settings, WorkerProcess]:
    """Give a worker that has consumed a record with the rights that it has."""
    admin, user = granted
    worker = workers.start(user, **ENVIRONMENT)
    await worker.wait_until_started()
    await produce(admin, [sending(run_request(run_id="run_0"))])
    await wait_until_consumed(admin, check=worker.check)
    return admin, worker


@pytest.mark.slow
async def test_a_topic_that_may_be_read_no_longer_is_one_sentence_until_it_may(
    consuming: tuple[Settings, WorkerProcess],
) -> None:
    admin, worker = consuming
    topic = admin.topics.run_requests
    await grant(admin, TOPIC, topic, READ, denied=True)

    def is_told() -> bool:
        worker.check()
        return any(topic in line["why"] for line in worker.logged("not ready"))

    await wait_until(is_told, "the sentence")
    await lift(admin, TOPIC, topic, READ)
    await produce(admin, [sending(run_request(run_id=f"run_{n}")) for n in range(1, 50)])
    await wait_until_consumed(admin, check=worker.check)
    assert await worker.stop() == 0
    assert "Traceback" not in worker.text


async def test_a_group_that_may_be_used_no_longer_ends_the_worker_with_one_sentence(
    consuming: tuple[Settings, WorkerProcess],
) -> None:
    admin, worker = consuming
    group = admin.topics.persist_group
    await grant(admin, GROUP, group, READ, denied=True)
    assert await worker.ended() == 6
    assert f"does not let {USER} use the consumer group {group}: " in only_sentence(worker.text)
    assert "Traceback" not in worker.text

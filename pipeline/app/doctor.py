"""What a start needs, asked one question after the other; nothing is made, moved or written.

| question | by |
|---|---|
| files | the limit of open files, as a service raises it |
| clock, disk | of a store on one disk: the time, against that of the store's own files; \
`is_disk_writable` and the room of the volume |
| bucket | of a store in one: it answers, and has a store |
| store | identity, owner and index |
| key | `load_own_key`, as a worker signs |
| java | what the local broker of one host runs on |
| broker | `describe_cluster`, and that it is the one of the store |
| topics | `broken_promises` |
| rights | what the broker says that this user may do |
| persist, advisories, audit | `look_at_start`, `check_audit_start`: log, group, store, ledger |
| api, metrics | tokens and address |
| traces | the extra `otel`, where a collector is named |

A question that fails, or is not answered in time, does not stop the others, except those that it
is the ground of: without a broker there are no topics to ask about.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from pipeline.app import machine
from pipeline.app.machine import Found, State
from pipeline.broker.admin.rights import Right, Rights, missing_rights
from pipeline.broker.admin.topic_promises import Consequence
from pipeline.broker.connection import describe_cluster
from pipeline.consumers.start.checks import broken_promises, check_audit_start, look_at_start
from pipeline.consumers.start.partition_states import ReadLog
from pipeline.core.store.identity import StoreIdentity
from pipeline.disk.store_identity import check_identity
from pipeline.errors import RmosError, StoreError
from pipeline.ledger.reader import StoreLogs
from pipeline.legacy.v1_mode.start import check_v2_store
from pipeline.settings import Settings
from pipeline.storage.contents import opened_contents
from pipeline.storage.ledger_key import verifier_keys
from pipeline.storage.store import Store, open_to_read
from pipeline.topics import topic_table

ANSWER_SECONDS = 30.0
"""Longest time for one question; a broker that does not answer takes up to 20 s to be named."""

LOG_SECONDS = 120.0
"""Longest time to compare a log with store and group: what was not consumed yet is read."""

_READ = frozenset({Right.READ, Right.DESCRIBE})
_WRITE = frozenset({Right.WRITE, Right.DESCRIBE})
_CONFIGS = frozenset({Right.DESCRIBE_CONFIGS})

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question.

    Attributes:
        question: One word.
        sentence: What was found; where it is not usable, also what to do.
    """

    question: str
    state: State
    sentence: str


@dataclass(frozen=True, slots=True)
class _Question:
    name: str
    ask: Callable[[], Awaitable[Found]]
    ground: frozenset[str]
    seconds: float


async def examine(settings: Settings) -> AsyncGenerator[Answer, None]:
    """Ask every question; yield each answer as it comes."""
    unusable: set[str] = set()
    for question in _questions(settings):
        if missing := sorted(question.ground & unusable):
            sentence = f"It needs what is not usable: {', '.join(missing)}."
            yield Answer(question.name, State.NOT_ASKED, sentence)
            continue
        state, sentence = await _answered(question)
        if state is State.NOT_USABLE:
            unusable.add(question.name)
        yield Answer(question.name, state, sentence)


async def _answered(question: _Question) -> Found:
    try:
        async with asyncio.timeout(question.seconds):
            return await question.ask()
    except TimeoutError:
        return State.NOT_USABLE, (
            f"No answer within {question.seconds:g} s: look at the disk and the broker, whichever "
            "this asks."
        )
    except RmosError as error:
        return State.NOT_USABLE, " ".join([str(error), *error.lines])
    except Exception as error:  # noqa: BLE001  # whatever it is, the other questions are asked
        return State.NOT_USABLE, f"It cannot be asked: {type(error).__name__}: {error}."


async def _apart(function: Callable[[], _Result]) -> _Result:
    """Run what may hang at a disk in a thread that nobody waits for at the end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_Result] = loop.create_future()

    def give(finish: Callable[[], None]) -> None:
        def unless_given_up() -> None:
            if not done.done():
                finish()

        with suppress(RuntimeError):  # The loop has ended before it.
            loop.call_soon_threadsafe(unless_given_up)

    def work() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001  # it is raised where it is awaited
            give(partial(done.set_exception, error))
        else:
            give(partial(done.set_result, result))

    threading.Thread(target=work, name="doctor", daemon=True).start()
    return await done


def _questions(settings: Settings) -> Iterable[_Question]:
    def local(name: str, look: Callable[[Settings], Found], *ground: str) -> _Question:
        asked = partial(_apart, partial(look, settings))
        return _Question(name, asked, frozenset(ground), ANSWER_SECONDS)

    def remote(name: str, look: Callable[[Settings], Awaitable[Found]], *ground: str) -> _Question:
        return _Question(name, partial(look, settings), frozenset(ground), ANSWER_SECONDS)

    yield local("files", machine.look_at_files)
    if settings.is_shared:
        yield local("bucket", machine.look_at_bucket)
    else:
        yield local("clock", machine.look_at_clock)
        yield local("disk", machine.look_at_disk)
    if settings.runs_v2_enabled:
        yield local("store", machine.look_at_store)
        yield local("key", machine.look_at_key, "store")
    else:
        yield local("store", machine.look_at_v1_store)
    yield remote("broker", _broker)
    if not settings.is_shared:
        yield local("java", machine.look_at_java)
    yield remote("topics", _topics, "broker")
    yield remote("rights", _rights, "broker", "topics")
    if settings.runs_v2_enabled:
        ground = ("broker", "topics", "store", "key")
        names = settings.topics
        runs = (names.run_events, names.run_dead_letters)
        advisories = (names.advisory_events, names.advisory_dead_letters)
        for name, topic, group, writes in (
            ("persist", names.run_requests, names.persist_group, runs),
            ("advisories", names.advisory_requests, names.advise_group, advisories),
        ):
            asked = partial(_log, settings, topic, group, writes)
            yield _Question(name, asked, frozenset(ground), LOG_SECONDS)
        yield remote("audit", _audit, *ground)
    yield local("api", machine.look_at_api)
    yield local("metrics", machine.look_at_metrics)
    yield local("traces", machine.look_at_traces)


async def _broker(settings: Settings) -> Found:
    cluster_id = await describe_cluster(settings)
    found = f"{settings.bootstrap_servers} is cluster {cluster_id}"
    if not settings.runs_v2_enabled:
        check_v2_store(settings, cluster_id)
        return State.FINE, f"{found}."
    try:
        store = await _apart(partial(_identity, settings))
    except StoreError:
        return State.FINE, f"{found}."
    check_identity(*store, cluster_id=cluster_id, prefix=settings.prefix)
    return State.FINE, f"{found}, the one of the store."


def _identity(settings: Settings) -> tuple[StoreIdentity, str]:
    with opened_contents(settings) as store:
        return store.identity, store.name


async def _topics(settings: Settings) -> Found:
    names = {topic.name for topic in topic_table(settings.prefix)}
    broken = await broken_promises(settings, names)
    stopping = [
        each.sentence
        for each in broken
        if each.consequence in {Consequence.STOPS, Consequence.REFUSED}
    ]
    if stopping:
        return State.NOT_USABLE, " ".join(stopping)
    if broken:
        return State.NOTE, " ".join(each.sentence for each in broken)
    return State.FINE, f"{len(names)} topics are as they must be."


async def _rights(settings: Settings) -> Found:
    topics, groups = _needed_rights(settings)
    missing = await missing_rights(settings, topics, groups)
    user = settings.sasl_username or "this client"
    if missing:
        return State.NOT_USABLE, (
            f"The broker does not let {user} do all that workers and API do: {'; '.join(missing)}. "
            "Grant what docs/messages.md lists (who may do what), or leave the rest to another "
            "user."
        )
    return State.FINE, f"{user} may do all that workers and API do."


def _needed_rights(settings: Settings) -> tuple[Rights, Rights]:
    """Return the rights of all workers and the API together, as docs/messages.md lists them."""
    names = settings.topics
    if not settings.runs_v2_enabled:
        topics = {
            names.run_requests: _READ | _WRITE | _CONFIGS,
            names.run_events: _READ | _WRITE | _CONFIGS,
            names.run_dead_letters: _WRITE | _CONFIGS,
        }
        return topics, {names.persist_v1_group: _READ}
    topics = {
        **dict.fromkeys((names.run_requests, names.advisory_requests), _READ | _WRITE | _CONFIGS),
        **dict.fromkeys((names.run_events, names.advisory_events), _READ | _WRITE | _CONFIGS),
        **dict.fromkeys((names.run_dead_letters, names.advisory_dead_letters), _WRITE | _CONFIGS),
        names.audit_requests: _READ | _WRITE | _CONFIGS,
        names.audit_findings: _WRITE | _CONFIGS,
        names.audit_reports: _WRITE | _CONFIGS,
        names.audit_dead_letters: _WRITE | _CONFIGS,
    }
    return topics, dict.fromkeys(
        (names.persist_group, names.advise_group, names.audit_group), _READ
    )


def _opened(settings: Settings) -> tuple[Store, ReadLog | None]:
    """Open a store, and what reads its logs, for the checks of a start."""
    store = open_to_read(settings)
    if not settings.ledger_enabled:
        return store, None
    logs = StoreLogs(store, verifier_keys(settings, store.identity, store.files))
    there = frozenset(logs.ids())
    return store, lambda log: logs.open(log) if log in there else None


async def _log(settings: Settings, topic: str, group: str, writes: Iterable[str]) -> Found:
    store, read_log = await _apart(partial(_opened, settings))
    with closing(store):
        _, states, _ = await look_at_start(
            settings, store, read_log, topic=topic, group=group, writes=writes, accept_loss=False
        )
    waiting = sum(state.end - max(state.begin, state.read_from) for state in states)
    return (
        State.FINE,
        f"{group} would go on where the store is, {waiting:,} offsets before the end.",
    )


async def _audit(settings: Settings) -> Found:
    with ExitStack() as stack:
        store = await _apart(partial(stack.enter_context, opened_contents(settings)))
        await check_audit_start(settings, store)
    return State.FINE, f"{settings.topics.audit_group} would start."

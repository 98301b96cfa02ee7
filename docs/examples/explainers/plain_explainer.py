"""Explain every run with aiokafka and httpx alone; nothing of RMOS is installed or imported.

    pip install 'aiokafka[lz4]' httpx
    python plain_explainer.py 127.0.0.1:9092 http://127.0.0.1:8080 --runs 1

It reads the events of runs, asks the API for each run that was stored, writes a few lines about
why it is OK or not, and publishes them as an advisory. What you would replace is `explanation`,
`ENGINE_ID` and `ENGINE_VERSION`. A token of the role read, where the API asks for one, is taken
from the environment: EXPLAINER_TOKEN.

Ctrl-C and SIGTERM stop it after the run in hand. Exit status: 0 done or stopped, 4 an advisory
was refused or a run could not be read, 6 broker or API did not answer in time: start it again.
"""

import argparse
import asyncio
import hashlib
import json
import os
import signal
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

ENGINE_ID = "plain_explainer"
ENGINE_VERSION = "1"
WAIT_SECONDS = 30
ATTEMPTS = 5
BUSY = {502, 503, 504}
REMEMBERED_EVENTS = 100_000
SHOWN_WARNINGS = 20
SHOWN_CHARACTERS = 500


class NotInTimeError(Exception):
    """Broker or API did not answer. Nothing is committed, so a new start does it again."""


class NotReadableError(Exception):
    """The API has answered, and not with a run. Asking again would not help."""


async def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("bootstrap_servers")
    options.add_argument("api_url")
    options.add_argument("--prefix", default="rmos")
    options.add_argument("--group", default=ENGINE_ID)
    options.add_argument("--runs", type=int, help="end after so many runs")
    asked = options.parse_args()
    token = os.environ.get("EXPLAINER_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    refused = 0
    async with (
        httpx.AsyncClient(base_url=asked.api_url, headers=headers, timeout=WAIT_SECONDS) as api,
        run_events(asked) as events,
        Advisories(asked.bootstrap_servers, asked.prefix) as advisories,
    ):
        try:
            async for record, event in stored_runs(events, asked.runs):
                refused += not await explain(api, advisories, event["run_id"])
                # Only now: where we die before, the event comes again and the advisory is the
                # same, so it is a duplicate.
                await events.commit({place_of(record): record.offset + 1})
        except NotInTimeError as error:
            print(shown(str(error)), flush=True)
            return 6
    return 4 if refused else 0


async def explain(api: httpx.AsyncClient, advisories: "Advisories", run_id: str) -> bool:
    """Publish an explanation of one run; return whether it is there now, or will be."""
    try:
        run = await get_run(api, run_id)
    except NotReadableError as error:
        print(shown(f"{run_id}: {error}"), flush=True)
        return False
    event = await advisories.publish(advisory_of(run))
    why = event.get("error", {}).get("code", "")
    print(shown(f"{run_id}: {event['outcome']} {why}".rstrip()), flush=True)
    # Waiting is success too: the advisory has its id, and is linked as soon as the run is there.
    return event["outcome"] in {"linked", "duplicate", "waiting"}


def shown(text: str) -> str:
    """Return what others wrote in ASCII, on one line: nothing in it may act on a terminal."""
    return ascii(text)[1:-1]


# What is said of a run. The same run must give the same text, as another text under the same
# advisory_id is a conflict: no clock, no random number, and new words are a new ENGINE_VERSION.


def advisory_of(run: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema_version": "rmos.advisory_request/1",
        "run_id": run["run_id"],
        "advisory_id": advisory_id_of(run["run_id"]),
        # The one value that differs at a retry; it is no part of what makes two the same.
        "created_at_utc": datetime.now(UTC).isoformat(),
        "kind": "explanation",
        "engine_id": ENGINE_ID,
        "engine_version": ENGINE_VERSION,
        "title": f"Why this run is {run['status']}",
        "content_text": explanation(run),
    }


def advisory_id_of(run_id: str) -> str:
    """Return the same id for the same run, engine and version, so that a retry is a duplicate."""
    name = f"{run_id}/{ENGINE_ID}/{ENGINE_VERSION}"
    return f"{ENGINE_ID}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def explanation(run: dict[str, Any]) -> str:
    """Return a few lines of Markdown."""
    decision = run["decision"]
    lines = [f"# Why this run is {run['status']}", "", sentence(run["status"], decision)]
    if decision.get("block_reason"):
        lines += ["", f"Reason: {quoted(decision['block_reason'])}"]
    warnings = decision.get("warnings", [])
    if warnings:
        lines += ["", "Warnings:", *(f"* {quoted(each)}" for each in warnings[:SHOWN_WARNINGS])]
        if len(warnings) > SHOWN_WARNINGS:
            lines.append(f"* and {len(warnings) - SHOWN_WARNINGS} more")
    withheld = run["provenance"].get("withheld", [])
    if withheld:
        lines += ["", f"Withheld from the machine: {', '.join(map(quoted, withheld))}"]
    return "\n".join(lines) + "\n"


def sentence(status: str, decision: dict[str, Any]) -> str:
    score = f", score {decision['score']}" if "score" in decision else ""
    risk = f"The worst risk that was found is {decision['risk_level']}{score}."
    if status == "OK":
        return f"{risk} With GREEN and YELLOW the machine may cut."
    if decision["risk_level"] in {"GREEN", "YELLOW"}:
        return f"{risk} The producer itself said that it must not be cut."
    return f"{risk} Only GREEN and YELLOW may be cut."


def quoted(text: str) -> str:
    """Return what a producer wrote as code, so that no Markdown or HTML in it means anything."""
    line = " ".join(text.replace("`", "'").split())
    return f"`{line[:SHOWN_CHARACTERS]}`"


# Kafka in: every run that was stored, each event once.


def run_events(asked: argparse.Namespace) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        f"{asked.prefix}.runs.events",
        bootstrap_servers=asked.bootstrap_servers,
        # A group of our own: it stands where we stopped, whatever other readers do.
        group_id=asked.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )


async def stored_runs(
    events: AIOKafkaConsumer, limit: int | None
) -> AsyncIterator[tuple[ConsumerRecord, dict[str, Any]]]:
    """Yield the event of every run that was stored, until there are enough or a signal comes."""
    stopped = stop_on_signals()
    known: OrderedDict[str, None] = OrderedDict()
    found = 0
    while limit is None or found < limit:
        record = await next_record(events, stopped)
        if record is None:
            return
        event = json.loads(record.value)
        # Delivery is at least once. A repeated request becomes a duplicate later.
        is_new = event["event_id"] not in known
        known[event["event_id"]] = None
        if len(known) > REMEMBERED_EVENTS:
            known.popitem(last=False)
        # A refused request has no run, and the run of a duplicate had an event before.
        if is_new and event["outcome"] == "persisted":
            found += 1
            yield record, event


async def next_record(
    events: AIOKafkaConsumer, stopped: asyncio.Future[None]
) -> ConsumerRecord | None:
    reading = asyncio.ensure_future(events.getone())
    await asyncio.wait({reading, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if reading.done():
        return reading.result()
    reading.cancel()
    return None


def stop_on_signals() -> asyncio.Future[None]:
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[None] = loop.create_future()

    def stop() -> None:
        if not stopped.done():
            stopped.set_result(None)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    return stopped


def place_of(record: ConsumerRecord) -> TopicPartition:
    return TopicPartition(record.topic, record.partition)


# HTTP: the run.


async def get_run(api: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    for attempt in range(ATTEMPTS):
        try:
            answer = await api.get(f"/api/rmos/runs/{run_id}")
        except httpx.TransportError:
            answer = None
        if answer is not None and answer.status_code not in BUSY:
            return run_in(answer)
        await asyncio.sleep(2**attempt)
    message = f"{run_id}: no answer of the API at {api.base_url}"
    raise NotInTimeError(message)


def run_in(answer: httpx.Response) -> dict[str, Any]:
    if answer.status_code != 200:
        raise NotReadableError(f"{answer.status_code} {answer.json()['error']}")
    return answer.json()


# Kafka out: the advisory, and what became of it.


class Advisories:
    """Publishes advisories one after the other, and waits for the event of each."""

    def __init__(self, servers: str, prefix: str) -> None:
        self._topics = f"{prefix}.advisories.requests", f"{prefix}.advisories.events"
        self._events = AIOKafkaConsumer(bootstrap_servers=servers, isolation_level="read_committed")
        self._producer = AIOKafkaProducer(
            bootstrap_servers=servers,
            acks="all",
            enable_idempotence=True,
            compression_type="lz4",
            max_request_size=5 * 1024 * 1024,
        )

    async def __aenter__(self) -> "Advisories":
        await self._events.start()
        await self._producer.start()
        # Stand at the end of the events before anything is sent, or its event may be missed.
        topic = self._topics[1]
        numbers = await self._producer.partitions_for(topic)
        partitions = [TopicPartition(topic, number) for number in numbers]
        self._events.assign(partitions)
        for partition, offset in (await self._events.end_offsets(partitions)).items():
            self._events.seek(partition, offset)
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._producer.stop()
        await self._events.stop()

    async def publish(self, advisory: dict[str, Any]) -> dict[str, Any]:
        """Return the last event of our own offset within the time."""
        value = json.dumps(advisory, ensure_ascii=False).encode()
        waiting = None
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                # The key is the run_id: all that concerns a run is in one partition, in order.
                sent = await self._producer.send_and_wait(
                    self._topics[0], value, advisory["run_id"].encode()
                )
                own = {"topic": sent.topic, "partition": sent.partition, "offset": sent.offset}
                async for record in self._events:
                    event = json.loads(record.value)
                    if event["source"] != own:
                        continue
                    if event["outcome"] != "waiting":
                        return event
                    waiting = event
        except TimeoutError:
            pass
        if waiting is None:
            message = f"{advisory['run_id']}: no answer in {WAIT_SECONDS} s about its advisory"
            raise NotInTimeError(message)
        return waiting


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

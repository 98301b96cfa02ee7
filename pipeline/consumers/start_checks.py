"""What must fit before a worker may consume: topics, store, log and group.

A worker that starts over the wrong folder or the wrong broker would write a second truth beside
the first, so each misfit is refused, with nothing committed, and the sentence names the way out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import structlog

from pipeline.broker.admin import (
    TopicDifference,
    committed_offsets,
    compare_topics,
    partition_offsets,
)
from pipeline.broker.connection import describe_cluster
from pipeline.broker.log_ranges import holds_records
from pipeline.errors import StoreNotReadyError, TopicsError
from pipeline.settings import Settings
from pipeline.storage.batch_store import BatchStore
from pipeline.storage.identity import check_identity

_log = structlog.get_logger(__name__)

Store: TypeAlias = BatchStore[Any, Any]
"""Of runs or of advisories: what is checked is the same."""


@dataclass(frozen=True, slots=True)
class PartitionState:
    """One partition as the log, the group and the store see it.

    Attributes:
        begin: First offset that the log still has.
        end: Offset after the last one.
        committed: Where the group goes on; None where it has never been.
        stored: Where the store goes on: the next offset of its last transaction, else 0.
    """

    topic: str
    partition: int
    begin: int
    end: int
    committed: int | None
    stored: int

    @property
    def place(self) -> str:
        """Topic and partition, for a sentence."""
        return f"{self.topic}, partition {self.partition}"


async def check_start(
    settings: Settings,
    store: Store,
    *,
    topic: str,
    group: str,
    writes: Iterable[str],
    accept_loss: bool,
) -> None:
    """Check that this worker may consume `topic` into `store` in `group`.

    Args:
        settings: Which broker and prefix.
        store: The opened store.
        topic: The request topic.
        group: The consumer group.
        writes: The topics that must be there besides.
        accept_loss: The operator accepts that the named offsets are not in the store.

    Raises:
        StoreNotReadyError: Store, log and group do not fit.
        TopicsError: A topic is missing or has other partitions.
        BrokerError: No broker answers.
    """
    cluster_id = await describe_cluster(settings)
    check_identity(store.identity, store.root, cluster_id=cluster_id, prefix=settings.prefix)
    await check_topics(settings, {topic, *writes})
    states = await partition_states(settings, store, topic=topic, group=group)
    for state in states:
        _refuse_lost_log(state, accept_loss=accept_loss)
    lost = [message for state in states if (message := await _lost_records(settings, state))]
    if lost and not accept_loss:
        raise StoreNotReadyError(
            f"{'; '.join(lost)}: if only the index is old, run rmos index rebuild; to go on "
            "without them, start with --accept-loss."
        )
    for message in lost:
        _log.warning("loss accepted", group=group, lost=message)
    _move_store_to_group(store, states)


async def partition_states(
    settings: Settings, store: Store, *, topic: str, group: str
) -> list[PartitionState]:
    """Return every partition of `topic` as log, group and store see it.

    Raises:
        BrokerError: No broker answers.
    """
    # In the order in which a record passes them backwards: another worker that goes on while we
    # look only makes the later ones larger, and must not look like a loss.
    committed = await committed_offsets(settings, group, [topic])
    stored = store.index.positions(store.identity.epoch)
    offsets = await partition_offsets(settings, [topic])
    return [
        PartitionState(
            topic,
            partition,
            found.beginning,
            found.end,
            committed.get((topic, partition)),
            stored.get((topic, partition), 0),
        )
        for (topic, partition), found in sorted(offsets.items())
    ]


async def check_topics(settings: Settings, needed: set[str]) -> None:
    """Check that the topics `needed` are there and as they must be.

    Raises:
        TopicsError: One is missing, has other partitions or takes less than it must.
        BrokerError: No broker answers.
    """
    for difference in await compare_topics(settings):
        if difference.topic not in needed:
            continue
        if difference.found is None:
            message = f"The topic {difference.topic} is missing: run rmos topics apply."
            raise TopicsError(message)
        if _holds_less(difference):
            message = (
                f"Expected the topic {difference.topic} to take messages of {difference.expected} "
                f"bytes, found {difference.found}: what it refuses would hold up its partition; "
                "raise its max.message.bytes."
            )
            raise TopicsError(message)
        if difference.setting == "partitions":
            message = (
                f"Expected the topic {difference.topic} to have {difference.expected} "
                f"partitions, found {difference.found}: the number is fixed for ever, so use "
                "another RMOS_PREFIX."
            )
            raise TopicsError(message)
        _log.warning(
            "topic differs",
            topic=difference.topic,
            setting=difference.setting,
            expected=difference.expected,
            found=difference.found,
        )


def _holds_less(difference: TopicDifference) -> bool:
    return difference.setting == "max.message.bytes" and int(difference.found or 0) < int(
        difference.expected
    )


def _refuse_lost_log(state: PartitionState, *, accept_loss: bool) -> None:
    """Refuse a log that ends before what was consumed of it: its offsets would be used again.

    Raises:
        StoreNotReadyError: It does.
    """
    if state.stored > state.end:
        raise StoreNotReadyError(
            f"The store has records up to offset {state.stored} of {state.place}, the log ends "
            f"at {state.end}: the broker has lost records or is another; run rmos store "
            "new-epoch, then start with --accept-loss."
        )
    if (state.committed or 0) > state.end and not accept_loss:
        raise StoreNotReadyError(
            f"The group has committed offset {state.committed} of {state.place}, the log ends at "
            f"{state.end}: the broker has lost records; run rmos store new-epoch, then start "
            "with --accept-loss."
        )


async def _lost_records(settings: Settings, state: PartitionState) -> str | None:
    """Return which records of a partition the worker would skip, in words."""
    if await _is_behind_group(settings, state):
        return (
            f"The group has committed offset {state.committed} of {state.place}, the store has "
            f"records up to {state.stored}"
        )
    following = state.committed if state.committed is not None else state.stored
    if following < state.begin:
        return (
            f"Offsets {following} to {state.begin - 1} of {state.place} were removed by "
            "retention before they were consumed"
        )
    return None


async def _is_behind_group(settings: Settings, state: PartitionState) -> bool:
    """Tell whether the group went past records that the store has not seen.

    The group also goes past what ends a transaction, of which the store is told nothing.
    """
    reached = min(state.committed or 0, state.end)
    if state.stored >= reached:
        return False
    return state.stored < state.begin or await holds_records(
        settings, state.topic, state.partition, state.stored, reached
    )


def _move_store_to_group(store: Store, states: list[PartitionState]) -> None:
    """Note where the group goes on, so that what was looked into is not met again."""
    behind = {
        (state.topic, state.partition): state.committed
        for state in states
        if state.committed is not None and state.stored < state.committed <= state.end
    }
    if behind:
        with store.index.transaction() as transaction:
            transaction.advance(store.identity.epoch, behind)

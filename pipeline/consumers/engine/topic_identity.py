"""The identity of a request topic: that of the store, or another topic of the same name.

A topic that was deleted and made again has the old one's name and offsets from 0 on. Nothing in its
offsets need show that: they may be the same, with other records. Kafka gives each topic an id, and
the index notes it at the first start (0023).
"""

from pipeline.broker.admin.topics import look_at_topic
from pipeline.broker.connection import admin_client
from pipeline.errors import StoreNotReadyError, TopicsError
from pipeline.settings import Settings
from pipeline.storage.index.run_index import RunIndex


async def current_topic_id(settings: Settings, topic: str) -> str | None:
    """Return the id of `topic`; None where the broker gives none.

    Raises:
        TopicsError: It is missing.
        BrokerError: No broker answers.
    """
    async with admin_client(settings) as admin:
        found = await look_at_topic(admin, topic)
    if found is None:
        raise TopicsError(missing(topic))
    return found.topic_id


async def check_topic_ids(settings: Settings, index: RunIndex, epoch: int) -> None:
    """Check that every topic whose id the store has noted is still that topic.

    Raises:
        StoreNotReadyError: One was deleted and made again.
        TopicsError: One is missing.
        BrokerError: No broker answers.
    """
    known = sorted(index.topic_ids(epoch).items())
    if not known:
        return
    async with admin_client(settings) as admin:
        for topic, topic_id in known:
            found = await look_at_topic(admin, topic)
            if found is None:
                raise TopicsError(missing(topic))
            refuse_other_topic(topic, topic_id, found.topic_id)


def refuse_other_topic(topic: str, known: str | None, found: str | None) -> None:
    """Refuse a topic that is another than the one that is known.

    Raises:
        StoreNotReadyError: It is. Nothing of it was consumed.
    """
    if known is not None and found is not None and known != found:
        raise StoreNotReadyError(
            f"The topic {topic} was deleted and made again: the store keeps the one with the id "
            f"{known}, the broker has {found}. Its offsets begin anew, so they would be taken "
            "for those of the old one: stop all workers, run rmos store new-epoch, and start "
            "them again."
        )


def missing(topic: str) -> str:
    """Return the sentence that a topic is missing."""
    return f"The topic {topic} is missing: run rmos topics apply."

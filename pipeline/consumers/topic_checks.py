"""Whether the topics of a worker are there, with the partitions and the room that it needs."""

import structlog

from pipeline.broker.admin import TopicDifference, compare_topics
from pipeline.errors import TopicsError
from pipeline.settings import Settings

_log = structlog.get_logger(__name__)


async def check_topics(settings: Settings, needed: set[str]) -> None:
    """Check the topics `needed`; log what is another setting than the table's.

    Raises:
        TopicsError: A topic is missing, has other partitions, or takes too small messages.
        BrokerError: No broker answers.
    """
    for difference in await compare_topics(settings, needed):
        _refuse_unusable(difference)
        _log.warning(
            "topic differs",
            topic=difference.topic,
            setting=difference.setting,
            expected=difference.expected,
            found=difference.found,
        )


def _refuse_unusable(difference: TopicDifference) -> None:
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


def _holds_less(difference: TopicDifference) -> bool:
    return difference.setting == "max.message.bytes" and int(difference.found or 0) < int(
        difference.expected
    )

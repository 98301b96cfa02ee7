"""Whether the topics of a worker are as its promises need them: at start, and while it runs."""

import structlog

from pipeline.broker.admin.topic_promises import BrokenPromise, Consequence, broken_promise
from pipeline.broker.admin.topics import compare_topics
from pipeline.errors import TopicsError
from pipeline.settings import Settings

_log = structlog.get_logger(__name__)

_AT_START = {Consequence.STOPS, Consequence.REFUSED}


async def broken_promises(settings: Settings, needed: set[str]) -> list[BrokenPromise]:
    """Return what is another of the topics `needed` than it must be.

    Raises:
        BrokerError: No broker answers.
    """
    return [
        broken_promise(difference, settings.topics)
        for difference in await compare_topics(settings, needed)
    ]


async def check_topics(settings: Settings, needed: set[str]) -> None:
    """Check the topics `needed`; log what a worker can go on with.

    Raises:
        TopicsError: A topic is missing, or a worker that starts would make it worse.
        BrokerError: No broker answers.
    """
    for each in await broken_promises(settings, needed):
        if each.consequence in _AT_START:
            raise TopicsError(each.sentence)
        log_difference(each)


def log_difference(broken: BrokenPromise) -> None:
    """Log what is another, and what that means."""
    difference = broken.difference
    _log.warning(
        "topic differs",
        topic=difference.topic,
        setting=difference.setting,
        expected=difference.expected,
        found=difference.found,
        means=broken.sentence,
    )

"""Why a consumer is not ready although it polls, each reason as one sentence."""

from collections.abc import Mapping

import structlog
from prometheus_client import Gauge

from pipeline import metrics

KINDS = {
    "broker": "the broker refuses what the consumer asks, such as where a right was taken away",
    "batch": "the same records are put off again and again",
    "commit": "what is done cannot be committed",
    "claims": "claims whose run has come cannot be linked",
    "schedule": "an audit that is due cannot be asked for",
    "unreadable": "a batch of the broker cannot be read",
    "group": "somebody else has committed records in the name of the group",
    "partitions": "a topic has another number of partitions than it must have",
    "transaction": "an open transaction of a producer holds records up",
    "settings": "a setting of a topic was changed, and a promise rests on it",
    "topic": "the request topic is missing",
    "unconfirmed": "the broker does not say whether topic and group are those of the store",
}
"""Every kind of reason: what is wrong."""

_log = structlog.get_logger(__name__)


class Standing:
    """The reasons for which one consumer is not ready, by kind.

    A reason is logged when it begins, when it changes and when it ends, however often it is
    reported.
    """

    def __init__(self, group: str) -> None:
        """Begin without a reason.

        Args:
            group: The consumer group, for metrics and logs.
        """
        self.group = group
        # Replaced, never changed: the thread that answers probes reads it meanwhile.
        self._sentences: Mapping[str, str] = {}

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences, in the order in which the reasons began; none where it is ready."""
        return tuple(self._sentences.values())

    def report(self, kind: str, sentence: str) -> None:
        """Let the consumer be not ready for this reason until `clear`.

        Args:
            kind: One of `KINDS`; one sentence of a kind holds at a time.
            sentence: What is wrong and what to do about it.
        """
        assert kind in KINDS, kind
        before = self._sentences.get(kind)
        if before == sentence:
            return
        if before is None:
            self._gauge(kind).inc()
        self._sentences = {**self._sentences, kind: sentence}
        _log.error("not ready", group=self.group, kind=kind, why=sentence)

    def clear(self, kind: str) -> None:
        """Take note that the reason of this kind, if there was one, holds no longer."""
        if kind not in self._sentences:
            return
        self._gauge(kind).dec()
        self._sentences = {name: each for name, each in self._sentences.items() if name != kind}
        _log.info("reason has ended", group=self.group, kind=kind)

    def _gauge(self, kind: str) -> Gauge:
        return metrics.NOT_READY_REASONS.labels(self.group, kind)

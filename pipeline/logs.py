"""Log lines on standard error: JSON for machines, readable on a terminal."""

import asyncio
import logging
import sys
from textwrap import indent

import structlog
from aiokafka.errors import KafkaError
from structlog.typing import EventDict, Processor, WrappedLogger

from pipeline.core.visible_text import visible, visible_lines
from pipeline.settings import Settings, variables_not_read

_LINES_OF_THEIR_OWN = frozenset({"exception", "stack"})

_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure_logging(settings: Settings) -> None:
    """Set up logging for this process, the libraries' own included."""
    readable = settings.log_format == "console" or (
        settings.log_format == "auto" and sys.stderr.isatty()
    )
    console = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    renderer = [_show, console] if readable else [structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                *renderer,
            ],
        )
    )
    handler.addFilter(_OncePerMinute())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    # FastStream swallows a failed commit of offsets and logs it only here.
    framework = logging.getLogger("rmos.faststream")
    framework.setLevel(logging.ERROR)
    framework.addFilter(_is_no_stop)
    framework.addFilter(_without_traceback)
    logging.getLogger("uvicorn.error").addFilter(_is_no_advice)
    mute_client_logging()
    original, others = variables_not_read()
    log = structlog.get_logger(__name__)
    if original:
        log.warning("variables of the original system, which are not read", instead=original)
    if others:
        log.warning("variables that are no settings", names=others)


def configure_early_logging() -> None:
    """Set up logging for a command that is no service: warnings of libraries, as plain lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_VisibleFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    mute_client_logging()


def mute_client_logging() -> None:
    """Log nothing from the Kafka client: our own errors explain its errors."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL + 1)


def enable_client_logging() -> None:
    """Log warnings of the Kafka client, as a service that has started should."""
    logging.getLogger("aiokafka").setLevel(logging.WARNING)


def _is_no_stop(record: logging.LogRecord) -> bool:
    """Return whether `record` is news: a batch that is cut off when stopping is delivered again."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, asyncio.CancelledError)


def _show(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Make each value visible: a path, a header or a reason comes from others."""
    return {name: _shown(name, value) for name, value in event.items()}


def _shown(name: str, value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    # Set in, so that no line of an error's text can be taken for a line of the log.
    return indent(visible_lines(text), "    ") if name in _LINES_OF_THEIR_OWN else visible(text)


class _VisibleFormatter(logging.Formatter):
    """Formats as usual, with texts of others made visible."""

    def format(self, record: logging.LogRecord) -> str:
        first, *others = visible_lines(super().format(record)).split("\n")
        return "\n".join([first, *(f"    {line}" for line in others)])


def _is_no_advice(record: logging.LogRecord) -> bool:
    """Return whether `record` is news: uvicorn advises to install what this API has no use for."""
    return not str(record.msg).startswith("No supported WebSocket library")


def _without_traceback(record: logging.LogRecord) -> bool:
    """Let a refusal of the broker be one line: its place in the client means nothing."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, KafkaError):
        record.msg, record.args = "offsets not committed: %s", (error,)
        record.exc_info = None
    return True


class _OncePerMinute(logging.Filter):
    """Lets a message of the Kafka client through once a minute, however often it repeats."""

    _SECONDS = 60.0

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("aiokafka"):
            return True
        # The traceback of a lost connection adds nothing to its message.
        record.exc_info = None
        last = self._last.get(record.msg, float("-inf"))
        if record.created - last < self._SECONDS:
            return False
        self._last[record.msg] = record.created
        return True

"""No value of a log line acts on a terminal or can be taken for another line."""

import json
import logging

import pytest
import structlog

from pipeline.logs import configure_early_logging, configure_logging
from pipeline.settings import Settings

TITLE = "\x1b]2;pwned\x07"
SECOND_LINE = "\n2026-01-01T00:00:00Z [info     ] run_y persisted OK"
HOSTILE = f"x{TITLE}{SECOND_LINE}\x9b31m\u202e\u200b"


def fail() -> None:
    raise ValueError(HOSTILE)


def log_everything() -> None:
    """Log what others wrote in every place that a log line has."""
    log = structlog.get_logger("ours")
    log.info(HOSTILE, path=HOSTILE, several=[HOSTILE], raw=HOSTILE.encode("utf-8"))
    logging.getLogger("uvicorn.error").warning("bad request %s", HOSTILE)
    try:
        fail()
    except ValueError:
        log.exception("failed", key=HOSTILE)
        logging.getLogger("asyncio").exception("never retrieved")


def raw_in(text: str) -> list[str]:
    return [bad for bad in ("\x1b", "\x07", "\x9b", "\u202e", "\u200b") if bad in text]


def test_the_console_shows_what_others_wrote_and_no_line_of_theirs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(Settings(log_format="console"))
    log_everything()

    written = capsys.readouterr().err
    assert raw_in(written) == []
    assert "path='x\\\\u001b]2;pwned\\\\u0007" in written
    assert [line for line in written.splitlines() if line.startswith("2026-01-01")] == []
    assert "    2026-01-01T00:00:00Z [info     ] run_y persisted OK" in written


def test_a_json_log_holds_the_values_and_no_raw_character_of_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(Settings(log_format="json"))
    log_everything()

    written = capsys.readouterr().err
    lines = written.splitlines()
    assert raw_in(written) == []
    assert json.loads(lines[0])["path"] == HOSTILE
    assert len(lines) == 4


def test_warnings_of_libraries_in_a_command_are_visible_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logging.getLogger().handlers = []
    configure_early_logging()
    log_everything()

    written = capsys.readouterr().err
    assert raw_in(written) == []
    assert [line for line in written.splitlines() if line.startswith("2026-01-01")] == []

"""`rmos doctor`: everything that a start checks, without a start."""

import asyncio
from contextlib import aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from pipeline.cli.options import AsJson
from pipeline.cli.views.terminal import note, print_json, print_text
from pipeline.errors import StoreError
from pipeline.settings import Settings, read_settings

if TYPE_CHECKING:
    from pipeline.app.doctor import Answer

_WIDTH = len("not usable")
_QUESTION_WIDTH = len("advisories")


def doctor(as_json: AsJson = False) -> None:
    """Check everything that a start needs, and say what to do; exit 6 if something is not usable.

    Open files, clock, disk, store, key, broker, Java, topics, rights, log and group of each worker,
    addresses of API and metrics. Each question has a time-out of its own. Nothing is made or
    written.
    """
    from pipeline.logs import configure_logging

    settings = read_settings().model_copy(update={"log_level": "error"})
    configure_logging(settings)
    answers = asyncio.run(_asked(settings, as_json=as_json))
    bad = [each.question for each in answers if each.state == "not usable"]
    if as_json:
        print_json({"ok": not bad, "answers": [asdict(each) for each in answers]})
    if bad:
        note(f"Not usable: {', '.join(bad)}.", "bold red")
        raise typer.Exit(StoreError.exit_status)


async def _asked(settings: Settings, *, as_json: bool) -> list["Answer"]:
    from pipeline.app.doctor import examine

    answers = []
    async with aclosing(examine(settings)) as examined:
        async for answer in examined:
            answers.append(answer)
            if not as_json:
                _print(answer)
    return answers


def _print(answer: "Answer") -> None:
    print_text(f"{answer.question:<{_QUESTION_WIDTH}}  {answer.state:<{_WIDTH}}  {answer.sentence}")

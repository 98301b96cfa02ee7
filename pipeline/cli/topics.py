"""`rmos topics`: create the topics, or compare them with the required settings."""

import asyncio
from dataclasses import asdict

import typer

from pipeline.broker.admin.topic_promises import broken_promise
from pipeline.broker.admin.topics import (
    TopicDifference,
    apply_topics,
    compare_topics,
    topics_no_longer_used,
)
from pipeline.cli.options import AsJson
from pipeline.cli.views.terminal import note, print_json, print_table, print_text
from pipeline.errors import IntegrityError
from pipeline.settings import Settings, read_settings
from pipeline.topics import DAY_MS, KEEP_FOREVER_MS, topic_table

app = typer.Typer(no_args_is_help=True)


@app.command()
def apply(as_json: AsJson = False) -> None:
    """Create the topics that are missing, then compare all; nothing is altered or deleted."""
    settings = read_settings()
    _report(settings, asyncio.run(apply_topics(settings)), as_json=as_json)


@app.command()
def check(as_json: AsJson = False) -> None:
    """Compare the topics with what they must be; exit 5 if anything differs."""
    settings = read_settings()
    differences = asyncio.run(compare_topics(settings))
    for name in asyncio.run(topics_no_longer_used(settings)):
        note(f"The topic {name} is no longer used: delete it once no older version runs.")
    _report(settings, differences, as_json=as_json)


def _report(settings: Settings, differences: list[TopicDifference], *, as_json: bool) -> None:
    number, kept_ms = len(topic_table(settings.prefix)), settings.request_retention_ms
    meant = [broken_promise(each, settings.topics).sentence for each in differences]
    if as_json:
        found = [
            {**asdict(each), "means": means} for each, means in zip(differences, meant, strict=True)
        ]
        print_json({"topics": number, "request_retention_ms": kept_ms, "differences": found})
    elif differences:
        print_table(("topic", "setting", "must be", "is"), map(_row, differences))
        for means in meant:
            note(means)
    else:
        print_text(f"{number} topics as they must be")
    if kept_ms != KEEP_FOREVER_MS:
        note(
            f"Requests are kept for {kept_ms / DAY_MS:g} days only (RMOS_REQUEST_RETENTION_MS): "
            "what is older than the log's start cannot be restored from it."
        )
    if differences:
        raise typer.Exit(IntegrityError.exit_status)


def _row(each: TopicDifference) -> tuple[object, ...]:
    found = "missing" if each.found is None else each.found
    return each.topic, each.setting, each.expected, found

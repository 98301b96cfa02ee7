"""The first start: one bar where somebody watches, a few lines where nobody does."""

import asyncio
import contextlib
import re
import threading
from pathlib import Path

import pytest

from pipeline.app.local import local_broker
from pipeline.broker.local import broker as local
from pipeline.broker.local.runtime import DESCRIPTIONS, Downloaded, KafkaRuntime, ReportStep
from pipeline.cli.broker import starting
from pipeline.settings import read_settings

JARS = 92


def download_and_start() -> None:
    """Report every file of a first download, as it comes."""
    with starting() as report:
        for number in range(DESCRIPTIONS + 1):
            report(Downloaded(number, 0, None, 0))
        for number in range(JARS + 1):
            report(Downloaded(DESCRIPTIONS, number, JARS, number * 600_000))
        report("starting Apache Kafka")


def test_where_nobody_watches_a_download_has_six_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    download_and_start()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("(56 MB): looking up what it needs")
    assert [line.partition(": ")[2] for line in lines[1:6]] == [
        "0 of 56 MB, 0 of 92 jars",
        "14 of 56 MB, 23 of 92 jars",
        "28 of 56 MB, 46 of 92 jars",
        "41 of 56 MB, 69 of 92 jars",
        "55 of 56 MB, 92 of 92 jars",
    ]
    assert lines[6:] == ["starting Apache Kafka"]


def test_where_somebody_watches_it_is_one_bar_that_goes_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "110")
    download_and_start()
    written = capsys.readouterr().err
    assert re.search(rf"/{JARS}\b", written)
    # The bar is drawn in its own place, and erased before the next line.
    assert written.count("\n") < 5
    assert ".pom" not in written


async def test_a_start_that_is_cancelled_does_not_wait_for_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloading = threading.Event()

    def endless(_cache: Path | None, on_progress: ReportStep) -> KafkaRuntime:
        while True:
            on_progress(Downloaded(1, 0, None, 0))
            downloading.set()

    monkeypatch.setattr(local, "kafka_runtime", endless)
    settings = read_settings(data_dir=tmp_path, broker_port=0)

    async def start() -> None:
        async with local_broker(settings, lambda _what: None):
            pytest.fail("it started")

    starting = asyncio.create_task(start())
    await asyncio.to_thread(downloading.wait)
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait_for(starting, 60)
    assert starting.cancelled()

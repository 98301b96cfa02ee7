"""`rmos doctor` without a broker: every question is answered, and nothing is touched."""

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.app import doctor, machine
from tests.cli.command_line import CommandLine

QUESTIONS = [
    *("files", "clock", "disk", "store", "key", "broker", "java", "topics", "rights"),
    *("persist", "advisories", "audit", "api", "metrics", "traces"),
]


def asked(rmos: CommandLine) -> dict[str, tuple[str, str]]:
    done = rmos("doctor", "--json")
    assert done.document["ok"] is (done.status == 0)
    assert done.status in {0, 6}
    found = {each["question"]: each for each in done.document["answers"]}
    assert list(found) == QUESTIONS
    return {name: (each["state"], each["sentence"]) for name, each in found.items()}


def test_without_store_and_broker_each_question_is_answered_or_names_its_ground(
    rmos: CommandLine,
) -> None:
    found = asked(rmos)
    states = {name: state for name, (state, _) in found.items()}
    assert {name for name, state in states.items() if state == "not usable"} == {
        *("disk", "store", "broker")
    }
    assert found["store"][1].endswith("make a new store with rmos store init.")
    assert found["persist"] == ("not asked", "It needs what is not usable: broker, store.")
    assert states["api"] == states["files"] == states["clock"] == "fine"
    lines = rmos("doctor")
    assert lines.status == 6
    assert [line.split()[0] for line in lines.text.splitlines()] == QUESTIONS
    assert "Not usable: disk, store, broker." in lines.err


def everything(folder: Path) -> dict[str, Any]:
    return {
        str(path): (state.st_ino, state.st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in [folder, *folder.rglob("*")]
        if (state := path.stat())
    }


def test_nothing_of_the_store_is_touched(rmos_with_runs: CommandLine) -> None:
    before = everything(rmos_with_runs.data_dir)
    found = asked(rmos_with_runs)
    assert "5 runs" in found["store"][1]
    assert everything(rmos_with_runs.data_dir) == before


def test_a_question_that_hangs_does_not_stop_the_others(
    rmos: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = threading.Event()

    def store(_settings: object) -> tuple[machine.State, str]:
        hanging.wait()
        return machine.State.FINE, "too late"

    monkeypatch.setattr(machine, "look_at_store", store)
    monkeypatch.setattr(doctor, "ANSWER_SECONDS", 0.5)
    found = asked(rmos)
    hanging.set()
    assert found["store"][0] == "not usable"
    assert found["store"][1].startswith("No answer within 0.5 s")
    assert found["api"][0] == "fine"


def test_a_question_that_breaks_does_not_stop_the_others(
    rmos: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk(_settings: object) -> tuple[machine.State, str]:
        raise ZeroDivisionError

    monkeypatch.setattr(machine, "look_at_disk", disk)
    found = asked(rmos)
    assert found["disk"] == ("not usable", "It cannot be asked: ZeroDivisionError: .")
    assert found["api"][0] == "fine"


def test_a_clock_behind_the_store_is_not_usable(
    rmos_with_runs: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.time, "time", lambda: 1_000_000_000.0)
    assert asked(rmos_with_runs)["clock"][0] == "not usable"


def test_too_few_files_are_not_usable(rmos: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _kind: (256, 512))
    state, sentence = asked(rmos)["files"]
    assert state == "not usable"
    assert "512 files" in sentence


def test_an_address_beyond_loopback_without_tokens_is_not_usable(rmos: CommandLine) -> None:
    rmos.set("RMOS_API_HOST", "0.0.0.0")  # what must be refused
    state, sentence = asked(rmos)["api"]
    assert state == "not usable"
    assert "RMOS_API_TOKENS_FILE" in sentence


def test_an_address_that_another_program_has_is_not_usable(rmos: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        rmos.set("RMOS_API_PORT", str(other.getsockname()[1]))
        # It takes connections and answers nothing.
        state, sentence = asked(rmos)["api"]
    assert state == "not usable"
    assert "set RMOS_API_HOST and RMOS_API_PORT to a free address" in sentence


@contextmanager
def answering(body: bytes) -> Iterator[int]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Print nothing."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(("body", "state"), [(b'{"live": true}', "fine"), (b"hi", "not usable")])
def test_an_address_that_this_program_serves_already_is_fine(
    rmos: CommandLine, body: bytes, state: str
) -> None:
    with answering(body) as port:
        rmos.set("RMOS_METRICS_PORT", str(port))
        assert asked(rmos)["metrics"][0] == state


def test_a_collector_without_the_extra_is_not_usable(
    rmos: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked(rmos)["traces"][0] == "not asked"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    state, sentence = asked(rmos)["traces"]
    assert state == "not usable"
    assert "install the extra otel" in sentence


def test_a_volume_that_is_nearly_full_and_one_port_for_two_are_noted(
    rmos_with_runs: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = replace(machine.room_of(rmos_with_runs.data_dir), free_bytes=740_000, inodes=0)
    monkeypatch.setattr(machine, "room_of", lambda _folder: room)
    rmos_with_runs.set("RMOS_API_PORT", "9100")
    rmos_with_runs.set("RMOS_METRICS_PORT", "9100")
    found = asked(rmos_with_runs)
    assert (found["disk"][0], found["metrics"][0]) == ("note", "note")
    assert found["disk"][1].startswith("Only 740.0 kB are free at ")

"""What others publish never acts on the terminal of who reads it, nor forges a line of a pipe."""

import asyncio
import json
import os
import pty
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.broker.local.broker import LocalBroker
from pipeline.settings import Settings
from tests.builders import advisory_request, attachment, encode, run_request
from tests.e2e.advisories import publish, wait_until_all_told
from tests.e2e.api_service import ApiService, api_service
from tests.e2e.kafka_reading import EVERY_TOPIC, Sending, produce, sending, wait_until_consumed
from tests.e2e.worker_processes import worker_environment

pytestmark = pytest.mark.e2e

IN_TURN = Path(__file__).with_name("commands_in_turn.py")

FORGED = "run_y  persisted  OK  may_cut=true"
HIDDEN = "\u202e\u2066\u200b\ufeff\u2028[red]\U000e0041"
"""What a name may hold: no control characters, but those that reorder a line or are not seen."""
HOSTILE = f"\x1b]2;pwned\x07\r\n{FORGED}\n{FORGED}\t\x9b31m\x7f{HIDDEN}"

RAW = ("\x1b]", "\x07", "\x9b", "\x7f", *"\u202e\u2066\u200b\ufeff\u2028\U000e0041")
"""What no output may hold; colours of our own begin with the escape character and a bracket."""

NAMES = (
    *("event_type", "mode", "tool_id", "material_id", "machine_id", "workflow_session_id"),
    *("workflow_mode", "toolchain_id", "post_processor_id", "geometry_ref", "geometry_hash"),
    *("parent_run_id", "parent_plan_run_id", "request_id", "gate_policy_id", "gate_decision"),
    *("engine_version", "toolchain_version", "post_processor_version", "config_fingerprint"),
)


def hostile_request(run_id: str, **changes: Any) -> dict[str, Any]:
    """Return a request with such texts in every field that can hold one."""
    return run_request(
        run_id=run_id,
        **dict.fromkeys(NAMES, HIDDEN),
        decision={"risk_level": "RED", "block_reason": HOSTILE, "warnings": [HOSTILE]},
        feasibility={"risk_level": "RED", "block_reason": HOSTILE, HOSTILE: [HOSTILE]},
        request={HOSTILE: {HOSTILE: HOSTILE}},
        meta={HOSTILE: HOSTILE},
        error={"type": HIDDEN, "message": HOSTILE},
        errors=[HOSTILE],
        outputs={"gcode_text": HOSTILE, "preview_svg": HOSTILE, "gcode_path": HIDDEN},
        attachments=[attachment(HOSTILE.encode(), kind="geometry", filename=f"a{HIDDEN}.dxf")],
        **{"notes": HOSTILE, **changes},
    )


def hostile_records() -> Iterator[Sending]:
    yield sending(hostile_request("run_a"))
    yield sending(hostile_request("run_b", notes=f"{HOSTILE}, changed"))
    key = HOSTILE.encode()
    headers = [(HOSTILE, key), ("traceparent", key)]
    yield Sending(key, encode(run_request(run_id="run_c")), headers)
    yield Sending(key, encode(run_request(run_id=HOSTILE)), headers)
    yield Sending(b"run_d", encode(run_request(run_id="run_d", schema_version=HOSTILE)), headers)
    yield Sending(key, b'{"' + key, headers)
    yield Sending(b"run_e", encode({**run_request(run_id="run_e"), HOSTILE: HOSTILE}), headers)


@pytest.fixture(scope="module")
async def api(
    broker: LocalBroker, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ApiService]:
    """Give a service to which such texts were published."""
    root = tmp_path_factory.mktemp("others") / "store"
    async with api_service(broker, root, needed=EVERY_TOPIC) as service:
        settings = service.settings
        await produce(settings, hostile_records())
        advisory = advisory_request(
            run_id="run_a",
            title=HOSTILE,
            content_text=HOSTILE,
            engine_id=HIDDEN,
            engine_version=HIDDEN,
            request_id=HIDDEN,
        )
        refused = {**advisory, "kind": HOSTILE, HOSTILE: HOSTILE, "advisory_id": "adv_2"}
        await wait_until_consumed(settings)
        places = await publish(settings, sending(advisory), sending(refused))
        await wait_until_all_told(settings, places)
        yield service


def commands(settings: Settings, folder: Path) -> list[list[str]]:
    """Return every command that shows what others wrote."""
    request, advisory = folder / "request.json", folder / "advisory.json"
    request.write_bytes(encode(hostile_request("run_f")))
    advisory.write_bytes(encode(advisory_request(run_id="run_f", title=HOSTILE)))
    lines = folder / "lines.ndjson"
    lines.write_bytes(encode(run_request(run_id="run_g", mode=HOSTILE)) + b"\n{}\n")
    run_file = next((settings.data_dir / "runs").rglob("run_a.json"))
    changed = folder / "run_a.json"
    changed.write_bytes(run_file.read_bytes() + b" ")
    shown = [
        ["runs", "list"],
        ["runs", "show", "run_a"],
        ["runs", "diff", "run_a", "run_b"],
        ["runs", "advisories", "run_a"],
        ["runs", "attachments", "run_a"],
        ["runs", "verify", "run_a"],
        ["publish", "run", "--wait", str(request)],
        ["publish", "advisory", "--wait", str(advisory)],
        ["dead-letters", "list"],
        ["index", "check"],
        ["audit", "file", str(run_file), str(changed)],
        ["replay", "plan"],
        ["replay", "verify"],
        ["store", "status"],
        ["offsets", "show"],
    ]
    return [
        *shown,
        *([*command, "--json"] for command in shown),
        ["runs", "show", HOSTILE],
        ["runs", "list", "--cursor", HOSTILE],
        ["audit", "report", HOSTILE],
        ["publish", "run", str(lines)],
        ["dead-letters", "export"],
        ["dead-letters", "redrive", "--all", "--dry-run"],
    ]


async def letters(settings: Settings) -> list[list[str]]:
    """Return the commands that show each dead letter."""
    listed = await output(settings, [["dead-letters", "list", "--json"]], terminal=False)
    documents = [json.loads(line) for line in listed.splitlines() if line.startswith("{")]
    sources = [document["source"] for document in documents if "source" in document]
    assert len(sources) == 5
    show = [["dead-letters", "show", source] for source in sources]
    return [*show, *([*command, "--json"] for command in show)]


async def output(settings: Settings, lines: list[list[str]], *, terminal: bool) -> str:
    """Return what commands print on a pipe, or on a terminal, errors included."""
    if terminal:
        reading, writing = pty.openpty()
    else:
        reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(IN_TURN), *map(json.dumps, lines)),
        env=worker_environment(settings, TERM="xterm-256color", COLUMNS="120"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=writing,
        stderr=writing,
    )
    os.close(writing)
    written = await asyncio.to_thread(_read_all, reading)
    assert await process.wait() == 0
    return written.decode(errors="surrogateescape")


def _read_all(reading: int) -> bytes:
    written = bytearray()
    with os.fdopen(reading, "rb", buffering=0) as source:
        while True:
            try:
                piece = source.read(65536)
            except OSError:
                # The end of a terminal: nobody has it open any more.
                break
            if not piece:
                break
            written += piece
    return bytes(written)


@pytest.mark.slow
async def test_no_command_lets_what_others_wrote_act_or_forge_a_line(
    api: ApiService, tmp_path: Path
) -> None:
    lines = [*commands(api.settings, tmp_path), *await letters(api.settings)]
    # Both at once: each command waits for the broker most of its time.
    shown = await asyncio.gather(
        *(output(api.settings, lines, terminal=terminal) for terminal in (False, True))
    )
    for terminal, written in zip((False, True), shown, strict=True):
        assert [bad for bad in RAW if bad in written] == []
        assert [line for line in written.splitlines() if line.startswith(FORGED)] == []
        assert written.count("exit ") >= len(lines)
        assert "Traceback" not in written
        assert ("\x1b" in written) is terminal
    assert "\\u001b]2;pwned\\u0007" in written


@pytest.mark.slow
async def test_exact_bytes_are_exact_in_a_pipe_and_escaped_on_a_terminal(api: ApiService) -> None:
    command = [["runs", "download", "run_a"]]
    exact = (await api.get("/run_a/download")).text
    assert "\u202e" in exact
    piped = await output(api.settings, command, terminal=False)
    assert exact in piped
    shown = await output(api.settings, command, terminal=True)
    assert [bad for bad in RAW if bad in shown] == []
    line = next(line for line in shown.splitlines() if line.startswith("{"))
    assert json.loads(line) == json.loads(exact)

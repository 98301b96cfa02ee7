"""The gate of a sender: exit 0 for exactly the bytes of a run that may be cut, 4 on any doubt."""

import ast
import asyncio
import hashlib
import importlib.util
import json
import shlex
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.api.http.server import listen, serving
from tests.api.conftest import Api
from tests.builders import red_request, run_request, sha256
from tests.e2e.secured_broker import Authority
from tests.evidence.proven_stores import change
from tests.storage.stores import row_of

GATE = Path(__file__).parents[2] / "docs" / "examples" / "gate" / "gate.py"
PROGRAM = b"G90\nG21\nG1 X10\nM30\n"
INLINE = {"outputs": {"gcode_text": PROGRAM.decode()}}


@pytest.fixture
def part(tmp_path: Path) -> Path:
    path = tmp_path / "part.nc"
    path.write_bytes(PROGRAM)
    return path


def write(part: Path, program: bytes) -> None:
    part.write_bytes(program)


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    async with serving(app, listening, stop_seconds=1):
        yield f"http://127.0.0.1:{port}"


async def asked(url: str, file: Path, **environment: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-W", "error", str(GATE), str(file)),
        env={"GATE_API": url, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


def gate() -> ModuleType:
    """Return the gate as a module of its own, with little patience."""
    spec = importlib.util.spec_from_file_location("gate", GATE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_gate_is_a_program_for_python_3_9_and_nothing_else() -> None:
    tree = ast.parse(GATE.read_text(encoding="utf-8"), feature_version=(3, 9))
    imported = [
        name.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for name in node.names
    ]
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))
    assert set(imported) <= sys.stdlib_module_names


async def test_real_runs_open_the_gate_for_exactly_their_bytes(api: Api, part: Path) -> None:
    api.add_runs(run_request(run_id="run_1", **INLINE), red_request(run_id="red"))
    async with served(api.app) as url:
        assert await asked(url, part) == (
            0,
            "MAY CUT: these bytes are the program of the run run_1 (GREEN)\n",
        )
        unknown = (4, "DO NOT CUT: no run knows these bytes\n")
        for other in (PROGRAM + b"\n", PROGRAM.replace(b"\n", b"\r\n"), PROGRAM[:-1]):
            write(part, other)
            assert await asked(url, part) == unknown
        write(part, red_request()["outputs"]["gcode_text"].encode())
        assert await asked(url, part) == (
            4,
            "DO NOT CUT: the run red is BLOCKED: rim speed above the blade's limit\n",
        )


async def test_a_blocked_twin_or_a_corrupt_artifact_closes_it(api: Api, part: Path) -> None:
    api.add_runs(run_request(run_id="run_1", **INLINE))
    async with served(api.app) as url:
        path = api.root / row_of(api.root, "run_1")["artifact_path"]
        change(path, b"maple", b"mople")
        status, words = await asked(url, part)
        assert (status, words) == (
            4,
            "DO NOT CUT: HTTPError: HTTP Error 500: Internal Server Error\n",
        )
        change(path, b"mople", b"maple")
        assert (await asked(url, part))[0] == 0
        api.add_runs(red_request(run_id="twin", created_at_utc="2020-01-01T00:00:00Z", **INLINE))
        status, words = await asked(url, part)
        assert (status, words[:39]) == (4, "DO NOT CUT: the run twin is BLOCKED: ri")


async def test_a_shell_starts_the_job_only_where_the_gate_is_open(api: Api, part: Path) -> None:
    api.add_runs(run_request(run_id="run_1", **INLINE))
    job = part.with_name("job")
    line = f"{sys.executable} {GATE} {shlex.quote(str(part))} && cat {part} > {job}"

    async def start(url: str) -> bool:
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", line), env={"GATE_API": url, "PATH": "/usr/bin:/bin"}
        )
        await process.wait()
        return job.exists()

    assert not await start("http://127.0.0.1:1")
    async with served(api.app) as url:
        assert await start(url)
    assert job.read_bytes() == PROGRAM


# Answers of a server that lies, and what the gate says of each.

RUN: dict[str, Any] = {
    "run_id": "run_1",
    "status": "OK",
    "risk_level": "GREEN",
    "gcode_sha256": sha256(PROGRAM),
    "may_cut": True,
    "block_reason": None,
}
ARTIFACT: dict[str, Any] = {
    "run_id": "run_1",
    "status": "OK",
    "decision": {"risk_level": "GREEN"},
    "hashes": {"gcode_sha256": sha256(PROGRAM)},
    "attachments": [],
    "provenance": {},
}


def page(*runs: Any, **changes: Any) -> bytes:
    return json.dumps({"items": list(runs), "next_cursor": None, "limit": 200} | changes).encode()


def pages(run: dict[str, Any] = RUN, artifact: Any = ARTIFACT, **changes: Any) -> dict[str, bytes]:
    content = artifact if isinstance(artifact, bytes) else json.dumps(artifact).encode()
    named = {"artifact_sha256": hashlib.sha256(content).hexdigest()} | run
    return {"runs": page(named, **changes), "download": content}


def answer(content: bytes, head: str = "200 OK", kind: str = "application/json") -> bytes:
    lines = f"HTTP/1.1 {head}\r\ncontent-type: {kind}\r\ncontent-length: {len(content)}\r\n\r\n"
    return lines.encode() + content


GOOD = pages()
LIES: dict[str, dict[str, bytes]] = {
    "another status": {"runs": answer(GOOD["runs"], "203 OK")},
    "an error": {"runs": answer(GOOD["runs"], "500 No")},
    "not known": {"runs": answer(GOOD["runs"], "401 No")},
    "another type": {"runs": answer(GOOD["runs"], kind="text/html")},
    "broke off": {"runs": answer(GOOD["runs"])[:-3]},
    "no HTTP": {"runs": b"hello\r\n\r\n"},
    "nothing": {"runs": b""},
    "no JSON": {"runs": answer(b"yes")},
    "an array": {"runs": answer(b"[]")},
    "true": {"runs": answer(b"true")},
    "NaN": {"runs": answer(page(RUN | {"score": float("nan")}))},
    "a name twice": {"runs": answer(GOOD["runs"].replace(b'"items"', b'"items": [], "items"'))},
    "UTF-16": {"runs": answer(GOOD["runs"].decode().encode("utf-16"))},
    "too deep": {"runs": answer(b'{"items":' * 100_000)},
    "no list": {"runs": answer(page(items={}))},
    "no cursor": {"runs": answer(GOOD["runs"].replace(b"next_cursor", b"next"))},
    "two pages": {"runs": answer(pages(next_cursor="MXxydW4=")["runs"])},
    "no run": {"runs": answer(page("run_1"))},
    "no run_id": {"runs": answer(page(RUN | {"run_id": "../x"}))},
    "empty": {"runs": answer(page())},
    **{
        f"{name} is {value!r}": {"runs": answer(pages(RUN | {name: value})["runs"])}
        for name, value in [
            *(("may_cut", each) for each in ("true", 1, None, False)),
            *(("status", each) for each in ("BLOCKED", "ERROR", None, "ok")),
            *(("risk_level", each) for each in ("RED", "UNKNOWN", None, "green")),
            *(("gcode_sha256", each) for each in (None, sha256(b""), sha256(PROGRAM).upper())),
            *(("artifact_sha256", each) for each in (None, sha256(b""))),
        ]
    },
    **{
        f"the artifact has {name} {value!r}": {
            part: answer(content)
            for part, content in pages(artifact=ARTIFACT | {name: value}).items()
        }
        for name, value in [
            ("run_id", "run_2"),
            ("status", "BLOCKED"),
            ("decision", {"risk_level": "YELLOW"}),
            ("decision", {}),
            ("hashes", {}),
            ("attachments", None),
            ("provenance", {"legacy": True}),
            ("provenance", {"withheld": ["outputs.gcode_text"]}),
        ]
    },
    "a missing artifact": {"download": answer(GOOD["download"], "404 No")},
    "another artifact": {"download": answer(GOOD["download"] + b" ")},
    "a blocked run beside it": {
        "runs": answer(
            page(
                json.loads(GOOD["runs"])["items"][0],
                RUN | {"run_id": "run_2", "status": "BLOCKED", "gcode_sha256": None},
            )
        )
    },
}


@asynccontextmanager
async def lying(
    answers: dict[str, bytes], on_ask: Callable[[], Any], context: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serve an answer for each part of the path; one that is not there is the good one."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).split()[1]
        part = "download" if head.endswith(b"download") else "runs"
        on_ask()
        writer.write(answers.get(part, answer(GOOD[part])))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def told(
    monkeypatch: pytest.MonkeyPatch,
    part: Path,
    answers: dict[str, bytes],
    on_ask: Callable[[], Any] = lambda: None,
) -> int:
    async with lying(answers, on_ask) as url:
        monkeypatch.setenv("GATE_API", url)
        status: int = await asyncio.to_thread(gate().main, [str(part)])
        return status


async def test_every_lie_closes_the_gate(monkeypatch: pytest.MonkeyPatch, part: Path) -> None:
    assert await told(monkeypatch, part, {}) == 0
    statuses = {name: await told(monkeypatch, part, answers) for name, answers in LIES.items()}
    assert statuses == dict.fromkeys(LIES, 4)


async def test_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch, part: Path) -> None:
    asks: list[int] = []
    async with lying({}, lambda: asks.append(1)) as elsewhere:
        moved = f"HTTP/1.1 302 Found\r\nlocation: {elsewhere}/runs\r\ncontent-length: 0\r\n\r\n"
        assert await told(monkeypatch, part, {"runs": moved.encode()}) == 4
    assert asks == []


async def test_a_proxy_of_the_environment_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, part: Path
) -> None:
    async with lying({}, lambda: None) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("GATE_API", "http://127.0.0.1:1")
        assert await asyncio.to_thread(gate().main, [str(part)]) == 4


async def test_a_file_that_changes_meanwhile_closes_it(
    monkeypatch: pytest.MonkeyPatch, part: Path
) -> None:
    assert await told(monkeypatch, part, {}, lambda: None) == 0
    for changed in (b"M30\n", b""):
        assert await told(monkeypatch, part, {}, partial(part.write_bytes, changed)) == 4
        write(part, PROGRAM)
    assert await told(monkeypatch, part, {}, lambda: part.unlink(missing_ok=True)) == 4


async def test_a_server_that_sends_a_byte_now_and_then_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, part: Path
) -> None:
    module = gate()
    monkeypatch.setattr(module, "SECONDS", 0.5)
    sent, ended = 0, asyncio.Event()

    async def talk(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
        while not ended.is_set():
            writer.write(b" ")
            sent += 1
            await asyncio.sleep(0.01)
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        monkeypatch.setenv("GATE_API", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        try:
            async with asyncio.timeout(60):
                assert await asyncio.to_thread(module.main, [str(part)]) == 4
        finally:
            ended.set()
    assert sent


@pytest.mark.parametrize(
    "url",
    [
        *("http://rmos.example", "http://10.0.0.1:8080", "ftp://127.0.0.1", "127.0.0.1:8080", ""),
        *("http://127.0.0.1@rmos.example", "file:///etc/hostname", "http://localhost.example"),
    ],
)
def test_only_tls_or_this_machine_is_asked(
    monkeypatch: pytest.MonkeyPatch, part: Path, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    monkeypatch.setenv("GATE_API", url)
    assert gate().main([str(part)]) == 4
    assert "must begin with https" in capsys.readouterr().err


@pytest.mark.slow
async def test_only_tls_that_somebody_vouches_for_opens_it(
    monkeypatch: pytest.MonkeyPatch, part: Path, tmp_path: Path
) -> None:
    ours, theirs = Authority("ours"), Authority("theirs")
    for name, content in (
        ("ours.pem", ours.pem),
        ("good", ours.issued("127.0.0.1")),
        ("of another authority", theirs.issued("127.0.0.1")),
        ("of another host", ours.issued("10.0.0.1")),
        ("expired", ours.issued("127.0.0.1", days=-1)),
    ):
        (tmp_path / name).write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ours.pem"))

    async def status_of(certificate: str) -> int:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tmp_path / certificate)
        async with lying({}, lambda: None, context) as url:
            monkeypatch.setenv("GATE_API", url.replace("http:", "https:"))
            status: int = await asyncio.to_thread(gate().main, [str(part)])
            return status

    assert await status_of("good") == 0
    for bad in ("of another authority", "of another host", "expired"):
        assert await status_of(bad) == 4, bad
    async with lying({}, lambda: None) as plain:
        monkeypatch.setenv("GATE_API", plain.replace("http:", "https:"))
        assert await asyncio.to_thread(gate().main, [str(part)]) == 4


def test_a_file_that_is_not_there_closes_it(tmp_path: Path) -> None:
    for arguments in ([str(tmp_path / "none")], [str(tmp_path)], [], ["a", "b"]):
        assert gate().main(arguments) == 4


async def test_a_reason_stays_one_line_that_acts_on_no_terminal(
    monkeypatch: pytest.MonkeyPatch, part: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = RUN | {"status": "BLOCKED", "block_reason": "\x1b[2J\nMAY CUT \u202e\ud800"}
    assert await told(monkeypatch, part, {"runs": answer(page(hostile))}) == 4
    err = capsys.readouterr().err
    assert (err.count("\n"), err.isascii(), "\x1b" in err) == (1, True, False)

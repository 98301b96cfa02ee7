"""`rmos demo` and `rmos up` as a person starts them: what they print, and what they leave."""

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.disk.stored_files import StoredFiles
from pipeline.storage.artifacts import find_run_files
from tests.builders import encode, run_request
from tests.e2e.kafka_reading import wait_until
from tests.e2e.worker_processes import RMOS

pytestmark = pytest.mark.e2e

OUTCOMES = [
    ("GREEN", "persisted", "OK", "yes", ""),
    ("YELLOW, 300 KB of G-code", "persisted", "OK", "yes", ""),
    ("RED", "persisted", "BLOCKED", "no", "z_rough must be negative (cutting"),
    ("no risk in it", "persisted", "BLOCKED", "no", "RISK_UNKNOWN"),
    ("incomplete: tool_id is 42", "persisted", "BLOCKED", "no", "INCOMPLETE_REQUEST: tool_id"),
    ("not JSON", "rejected", "-", "no", "INVALID_JSON"),
    ("the GREEN one again", "duplicate", "OK", "yes", ""),
    ("the GREEN one, changed", "conflict", "OK", "no", "RUN_CONFLICT"),
]
STOP_SECONDS = 60


def environment(**settings: str) -> dict[str, str]:
    """Return our environment without settings, but for those given."""
    inherited = {name: value for name, value in os.environ.items() if "RMOS_" not in name}
    return {**inherited, "RMOS_API_PORT": "0", **settings}


def brokers_below(folder: Path) -> list[int]:
    """Return the processes of local brokers whose data are below `folder`."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in process.info["cmdline"] or [])
        and "kafka.Kafka" in process.info["cmdline"]
    ]


class Up:
    """One `rmos up` over a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        self._output = folder / "up.log"
        self._settings = {"RMOS_DATA_DIR": str(self.data_dir), "RMOS_BROKER_PORT": "0"}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **settings: str) -> None:
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [RMOS, "up"],
                env=environment(**{**self._settings, **settings}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self._output.read_text(encoding="utf-8")

    @property
    def errors(self) -> list[str]:
        return [line for line in self.text.splitlines() if line.startswith("Error: ")]

    @property
    def broker(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data_dir / "kafka/broker.json").read_text())
        return found

    async def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.text
            return ": ready" in self.text

        await wait_until(is_ready, "rmos up is ready")

    async def ended(self) -> int:
        process = self.process
        assert process is not None
        await wait_until(
            lambda: process.poll() is not None, "the end of rmos up", seconds=STOP_SECONDS
        )
        return int(process.returncode)

    async def stop(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return await self.ended()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command against it."""
        address = f"127.0.0.1:{self.broker['port']}"
        return subprocess.run(
            [RMOS, *arguments],
            env=environment(**self._settings, RMOS_BOOTSTRAP_SERVERS=address),
            capture_output=True,
            text=True,
            check=False,
            timeout=STOP_SECONDS,
        )

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_SECONDS)
        # Killed like this it cannot stop its broker.
        for pid in brokers_below(self.data_dir):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    started = Up(tmp_path)
    yield started
    started.kill()


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    file = tmp_path / "request.json"
    file.write_bytes(encode(run_request(run_id="from_a_file")))
    return file


@pytest.mark.slow
def test_the_demo_tells_its_story_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [RMOS, "demo"],
        env=environment(TMPDIR=str(tmp_path)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=STOP_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert rows_of_the_table(done.stdout) == OUTCOMES
    # Computed, told by the event, restored, and told by the event once more.
    hashes = re.findall(r"^  ([0-9a-f]{64})\b", done.stdout, re.MULTILINE)
    assert len(hashes) == 4
    assert len(set(hashes)) == 1
    assert_the_api_told_its_part(done.stdout)
    assert_the_ledger_told_its_part(done.stdout)
    assert lines_of_the_readme() <= set(done.stdout.splitlines())
    assert done.stdout.endswith("Everything was stopped and the temporary folder removed.\n")
    assert list(tmp_path.iterdir()) == []
    assert brokers_below(tmp_path) == []


def lines_of_the_readme() -> set[str]:
    """Return what the README shows of the demo, without the table and what is shortened."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    shown = readme.partition("What it prints, shortened:\n")[2].partition("\nThe second line")[0]
    lines = {line.removeprefix("    ") for line in shown.splitlines() if line.startswith("    ")}
    assert len(lines) > 20
    return {line for line in lines if not line.startswith(("┃", "│")) and "..." not in line}


def assert_the_api_told_its_part(text: str) -> None:
    assert asked(text) == [
        ("GET /run_demo_red", "200 OK"),
        ("POST ", "409 Conflict"),
        ("GET /diff?a=run_demo_green&b=run_demo_yellow", "200 OK"),
        ("GET /run_demo_yellow/attachments/verify", "200 OK"),
        ("GET /run_demo_yellow/attachments/verify", "200 OK"),
    ]
    assert "  linked: runs/2025-12-18/run_demo_red_advisory_adv_demo.json\n" in text
    assert "  explanation_status: READY\n" in text
    assert "  SAFETY_BLOCKED: The run is stored and BLOCKED: z_rough must be negative" in text
    assert re.search(r"^  kept: [0-9,]+ bytes, runs/2025-12-18/run_demo_http\.json$", text, re.M)
    assert '~ decision.risk_level: "GREEN" -> "YELLOW"\n' in text
    found = re.findall(r"^  run_demo_yellow\.nc, 300,201 bytes: (.*)$", text, re.MULTILINE)
    assert found == ["as it was written", "hash_mismatch"]
    expected, actual = re.findall(r"^  (?:expected|found)\s+([0-9a-f]{64})$", text, re.MULTILINE)
    assert expected != actual


def assert_the_ledger_told_its_part(text: str) -> None:
    clean, changed = re.findall(r"^  INTEGRITY: (.*)$", text, re.MULTILINE)
    assert clean.startswith("ok: ")
    assert changed == "failed: Findings: ATTACHMENT_DIFFERS 1."
    (named,) = re.findall(r"^  error ATTACHMENT_DIFFERS: (.*)$", text, re.MULTILINE)
    (flipped,) = re.findall(r"chmod u-w: (\S+)\.\.\.$", text, re.MULTILINE)
    assert named.startswith(flipped)
    assert "  its request comes again: rejected, ARTIFACT_CORRUPT\n" in text
    assert re.search(r"^  rmos\.runs\.requests/\d+/\d+ is now \S+: duplicate$", text, re.MULTILINE)
    assert "  3 rows compared, 0 differences\n" in text
    assert "  RESULT       proven: " in text


def asked(text: str) -> list[tuple[str, str]]:
    """Return what was asked over HTTP, without the common prefix, and how it was answered."""
    lines = re.findall(r"^  ((?:GET|POST) )/api/rmos/runs(\S*)  ->  (.*)$", text, re.MULTILINE)
    return [(method + path, status) for method, path, status in lines]


def rows_of_the_table(text: str) -> list[tuple[str, ...]]:
    rows = [
        tuple(cell.strip() for cell in line.strip("│").split("│"))
        for line in text.splitlines()
        if line.startswith("│")
    ]
    # A row that begins with nothing goes on with the reason of the one above.
    return [row for row in rows if row[0]]


@pytest.mark.slow
async def test_up_takes_requests_and_goes_on_where_it_stopped_in_order(
    up: Up, request_file: Path
) -> None:
    up.start(RMOS_LOG_FORMAT="console")
    await up.wait_until_ready()
    assert "(new; keep a copy" in up.text
    (page,) = re.findall(r"page +http://(127\.0\.0\.1:\d+)/$", up.text, re.MULTILINE)
    assert "<html" in page_at(page, "/")
    published = up.run("publish", "run", "--wait", str(request_file))
    assert published.returncode == 0, published.stderr
    assert published.stdout == "from_a_file  persisted  OK  may_cut=true\n"
    await assert_that_no_path_acts_on_the_terminal(up)
    assert_that_another_says_who_runs(up)
    assert await up.stop(signal.SIGINT) == 0
    assert up.errors == []
    assert brokers_below(up.data_dir) == []
    assert len(list(find_run_files(StoredFiles(up.data_dir)))) == 1

    up.start()
    await up.wait_until_ready()
    assert "(new; keep a copy" not in up.text
    assert "building the ledger" not in up.text
    assert_that_it_is_a_duplicate(up, request_file)
    assert await up.stop(signal.SIGTERM) == 0
    assert up.errors == []
    assert brokers_below(up.data_dir) == []


@pytest.mark.slow
async def test_up_builds_the_ledger_that_is_missing_and_ends_when_its_broker_ends(
    up: Up, request_file: Path
) -> None:
    # As after an update from a version that had no ledger.
    up.start(RMOS_LEDGER_ENABLED="False")
    await up.wait_until_ready()
    up.run("publish", "run", "--wait", str(request_file))
    await up.stop(signal.SIGTERM)
    assert "(new; keep a copy" not in up.text
    up.start()
    await up.wait_until_ready()
    assert "building the ledger of 1 records that were consumed before" in up.text
    assert "(new; keep a copy" in up.text
    assert_that_it_is_a_duplicate(up, request_file)

    os.kill(up.broker["pid"], signal.SIGKILL)
    assert await up.ended() == 6
    assert len(up.errors) == 1
    assert up.errors[0].startswith("Error: The local broker ended by itself (exit status -9)")
    assert "Traceback" not in up.text


def assert_that_it_is_a_duplicate(up: Up, request_file: Path) -> None:
    again = up.run("publish", "run", "--wait", "--json", str(request_file))
    event, summary = map(json.loads, again.stdout.splitlines())
    assert event["outcome"] == "duplicate"
    assert summary == {"summary": {"published": 1, "duplicate": 1, "refused": 0}}


async def assert_that_no_path_acts_on_the_terminal(up: Up) -> None:
    """Ask as a web page may, for a path of control characters."""
    port = int(re.search(r"http://127\.0\.0\.1:([0-9]+)", up.text)[1])  # type: ignore[index]
    asked = HTTPConnection("127.0.0.1", port, timeout=STOP_SECONDS)
    asked.request("GET", "/api/rmos/runs/x%1b%5d2;pwned%07%c2%9b31m%e2%80%ae")
    assert asked.getresponse().status == 404
    asked.close()
    await wait_until(lambda: "pwned" in up.text, "the request is logged")
    assert [bad for bad in ("\x1b", "\x07", "\x9b", "\u202e") if bad in up.text] == []


def assert_that_another_says_who_runs(up: Up) -> None:
    second = up.run("up")
    assert second.returncode == 6
    assert second.stderr.startswith("Error: Another broker already uses ")
    assert second.stderr.count("\n") == 1


async def test_up_says_that_its_port_is_taken(up: Up) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up.start(RMOS_BROKER_PORT=str(port))
        assert await up.ended() == 6
    assert up.text == (
        f"Error: Port {port} at 127.0.0.1 is taken: stop what listens there, or set "
        "RMOS_BROKER_PORT to another one (RMOS_BROKER_PORT=0 takes any that is free).\n"
    )
    assert not (up.data_dir / "store.json").exists()


@contextmanager
def heeded_interrupts() -> Iterator[None]:
    """Let what is started here heed SIGINT, which background jobs of a shell inherit as ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def demo_begun(folder: Path, *options: str) -> subprocess.Popen[str]:
    """Begin a demo that has its temporary folder in `folder` and heeds an interrupt."""
    with heeded_interrupts():
        return subprocess.Popen(
            [RMOS, "demo", *options],
            env=environment(TMPDIR=str(folder)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@pytest.mark.slow
def test_a_demo_that_is_kept_shows_its_runs_on_the_page_until_it_is_stopped(
    tmp_path: Path,
) -> None:
    process = demo_begun(tmp_path, "--keep")
    try:
        assert_that_the_page_has_the_runs_of_the_demo(lines_until_kept(process))
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=STOP_SECONDS)
    assert process.returncode == 0, rest
    assert rest.endswith("Everything was stopped and the temporary folder removed.\n")
    assert list(tmp_path.iterdir()) == []
    assert brokers_below(tmp_path) == []


def lines_until_kept(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    shown = ""
    for line in process.stdout:
        shown += line
        if line.startswith("  Ctrl-C stops everything"):
            return shown
    raise AssertionError(shown)


def assert_that_the_page_has_the_runs_of_the_demo(shown: str) -> None:
    first, last = re.findall(r"http://(127\.0\.0\.1:\d+)/\n", shown)
    assert first == last
    page = page_at(last, "/")
    assert {"run_demo_green", "run_demo_red", "run_v1_green"} <= set(re.findall(r"run_\w+", page))
    red = page_at(last, "/run/run_demo_red")
    assert "DO NOT CUT" in red
    assert "z_rough must be negative" in red


def page_at(address: str, path: str) -> str:
    asked = HTTPConnection(address, timeout=STOP_SECONDS)
    asked.request("GET", path, headers={"Accept": "text/html"})
    answer = asked.getresponse()
    assert answer.status == 200
    text = answer.read().decode()
    asked.close()
    return text


@pytest.mark.slow
def test_a_demo_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    process = demo_begun(tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("2. "):
            break
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait(STOP_SECONDS) != 0
    process.stdout.close()
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []
    assert brokers_below(tmp_path) == []

"""One drill of the runbook: a broken shop, and the commands of the document as they stand.

What stands in the document is for one place: the store at /srv/rmos, the prefix rmos, the broker
at 127.0.0.1:9092. A table turns these words into those of the test and back; nothing else is
changed in a command, and nothing but that in what it prints.
"""

import asyncio
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.settings import Settings
from tests.docs.transcripts import INTERRUPT, RUNBOOK, Command, commands_of, difference, parts_of
from tests.e2e.forked import ForkedProcess
from tests.e2e.kafka_reading import wait_until
from tests.e2e.runbook.units import Units
from tests.e2e.worker_processes import RMOS, STOP_SECONDS

LOOK_SECONDS = 90.0
"""How long what only looks is asked again: a person looks again as well."""

_LOOKS = re.compile(
    r"journalctl |systemctl show |curl |psql .*SELECT state|"
    r"rmos (offsets show|index check|store status|runs (show|list|verify|advisories)|"
    r"dead-letters (list|show)|replay plan|ledger verify)\b"
)
_SHELL = re.compile(r"[|&;<>$(){}*?`\\]")
_INTO_FILE = re.compile(r"(rmos [\w ./-]+) > (\S+)")
_NAMES = re.compile(
    r"\brmos\.(?=(?:runs|advisories|audits|persist|advise|audit|migrate|redrives)\b)"
)


async def _nothing() -> None:
    pass


@dataclass
class Drill:
    """The shop of one drill.

    Attributes:
        settings: Of the store at /srv/rmos.
        folder: What `/` is in the document.
        units: Its services.
        words: What stands in the document, and what it is here.
        by_hand: Commands that somebody else does here, as written in the document: a machine
            that the test is not, or a volume that is in no fstab.
        before_interrupt: What a person waits for before Ctrl-C.
    """

    settings: Settings
    folder: Path
    units: Units
    words: dict[str, str] = field(default_factory=dict)
    by_hand: dict[str, Callable[[], None]] = field(default_factory=dict)
    before_interrupt: Callable[[], Awaitable[None]] = _nothing
    _parts: dict[str, str] = field(default_factory=dict)

    def read(self, page: str, heading: str) -> None:
        """Take the drill of that heading."""
        self._parts = parts_of(RUNBOOK / page, heading)

    async def you_see(self) -> None:
        await self._part("You see")

    async def run(self) -> None:
        await self._part("Run")

    async def then(self) -> None:
        await self._part("Then")

    async def answers(self, asked: str) -> None:
        """Wait until what `curl` is given answers with 200."""
        command = Command(f"curl -s -o /dev/null -w '%{{http_code}}' {asked}", ("200",), 0)
        await self.do(command)

    async def shell(self, line: str) -> str:
        """Run a line that is of no drill, in the words of the document; return what it printed."""
        status, printed = await asyncio.to_thread(self._in_shell, self._here(line))
        assert status == 0, printed
        return printed

    async def _part(self, name: str) -> None:
        commands = list(commands_of(self._parts[name]))
        assert commands, f"{name} has no command"
        for command in commands:
            await self.do(command)

    async def do(self, command: Command) -> None:
        """Run a command; it must print what the document shows."""
        deadline = time.monotonic() + LOOK_SECONDS
        line = self._here(command.line)
        while True:
            status, printed = await self._ran(line, command)
            fault = difference(command.printed, self._there(printed))
            if status != command.status:
                fault = f"exit status {status}, not {command.status}; it printed:\n{printed}"
            if fault is None:
                return
            assert _LOOKS.match(command.line), f"$ {command.line}\n{fault}"
            assert time.monotonic() < deadline, f"$ {command.line}\n{fault}"
            # Each look is a process, beside what is waited for.
            await asyncio.sleep(0.3)

    async def _ran(self, line: str, command: Command) -> tuple[int, str]:
        plain = not _SHELL.search(re.sub(r"'[^']*'", "", line))
        words = shlex.split(line) if plain else []
        if command.line in self.by_hand:
            self.by_hand[command.line]()
            return 0, ""
        if words[:1] == ["systemctl"]:
            return await self.units.systemctl(words[1:])
        if words[:1] == ["journalctl"]:
            return self.units.journalctl(words[1:])
        if INTERRUPT in command.printed:
            return await self._interrupted(words, command)
        if words[:1] == ["rmos"]:
            return await asyncio.to_thread(self._forked, words)
        if into := _INTO_FILE.fullmatch(line):
            return await asyncio.to_thread(self._forked, into[1].split(), Path(into[2]))
        return await asyncio.to_thread(self._in_shell, line)

    def _forked(self, words: list[str], file: Path | None = None) -> tuple[int, str]:
        output = self._empty_output()
        if file is not None:
            file.write_bytes(b"")
        environment = self.units.settings()
        process = ForkedProcess(words, environment, self.folder, file or output, output)
        return process.wait(), output.read_text(encoding="utf-8")

    def _empty_output(self) -> Path:
        output = self.folder / "output"
        output.write_bytes(b"")
        return output

    def _in_shell(self, line: str) -> tuple[int, str]:
        path = f"{RMOS.parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", line],
            env={**self.units.settings(), "PATH": path, "PYTHONUNBUFFERED": "1"},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    async def _interrupted(self, words: list[str], command: Command) -> tuple[int, str]:
        """Run what ends by Ctrl-C alone; press it once the lines above are there."""
        place = command.printed.index(INTERRUPT)
        before, after = command.printed[:place], command.printed[place + 1 :]
        output = self._empty_output()
        process = ForkedProcess(words, self.units.settings(), self.folder, output)

        def printed() -> str:
            return self._there(output.read_text(encoding="utf-8"))

        def is_there() -> bool:
            assert process.poll() is None, printed()
            return difference([*before, "..."], printed()) is None

        try:
            await wait_until(is_there, "what the document shows before Ctrl-C")
            await self.before_interrupt()
            process.send_signal(signal.SIGINT)
            await wait_until(lambda: process.poll() is not None, "the end", seconds=STOP_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}; it printed:\n{printed()}") from error
        finally:
            process.kill()
            process.wait()
        fault = difference([*before, *after], printed())
        # A terminal shows the key among the lines; where, nobody can know.
        return process.wait(), printed() if fault else "\n".join(command.printed)

    def _here(self, line: str) -> str:
        for there, here in self.words.items():
            line = line.replace(there, here)
        return _NAMES.sub(f"{self.settings.prefix}.", line)

    def _there(self, text: str) -> str:
        for there, here in self.words.items():
            text = text.replace(here, there)
        return text.replace(self.settings.prefix, "rmos")

"""`rmos` in this process, as a shell sees it: exit status, standard output, standard error."""

import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.commands import run

NOBODY = "127.0.0.1:1"
"""An address where no broker answers: a command that sends anything ends with status 6."""


@dataclass(frozen=True, slots=True)
class Done:
    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def document(self) -> Any:
        """The one JSON document that was printed, as one line."""
        assert self.text.count("\n") == 1, self.text
        return json.loads(self.text)

    @property
    def sentence(self) -> str:
        """The one line that says what went wrong; there must be nothing else."""
        assert self.err.startswith("Error: "), self.err
        assert self.err.count("\n") == 1, self.err
        assert self.out == b""
        return self.err.removeprefix("Error: ").rstrip("\n")


class CommandLine:
    """Runs commands with a folder as its store and no broker."""

    def __init__(
        self,
        data_dir: Path,
        monkeypatch: pytest.MonkeyPatch,
        captured: pytest.CaptureFixture[bytes],
    ) -> None:
        self.data_dir = data_dir
        self._monkeypatch = monkeypatch
        self._captured = captured
        self.set("RMOS_DATA_DIR", str(data_dir))
        self.set("RMOS_BOOTSTRAP_SERVERS", NOBODY)

    def set(self, name: str, value: str) -> None:
        self._monkeypatch.setenv(name, value)

    def __call__(self, *arguments: str, given: bytes = b"") -> Done:
        self._monkeypatch.setattr(sys, "argv", ["rmos", *arguments])
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        self._captured.readouterr()
        with pytest.raises(SystemExit) as ended:
            run()
        out, err = self._captured.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, out, err.decode())


def command_line(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[bytes]
) -> Iterator[CommandLine]:
    for name in [name for name in os.environ if name.startswith("RMOS_")]:
        monkeypatch.delenv(name)
    # Errors are one line whatever the width; tables are not for a person.
    monkeypatch.setenv("COLUMNS", "100")
    digits = sys.get_int_max_str_digits()
    yield CommandLine(data_dir, monkeypatch, captured)
    sys.set_int_max_str_digits(digits)

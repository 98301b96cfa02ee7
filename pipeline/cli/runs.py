"""`rmos runs`: read what is stored."""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from pipeline.cli.evidence import export
from pipeline.cli.options import STANDARD_INPUT, AsJson, run_filter, with_options
from pipeline.cli.views.terminal import (
    counted,
    is_watched,
    note,
    print_bytes,
    print_json,
    print_pairs,
    print_styled,
    print_table,
    print_text,
)
from pipeline.core.json.difference import dotted_path
from pipeline.core.visible_text import visible
from pipeline.errors import IntegrityError, NotFoundError, RefusedError, input_faults
from pipeline.settings import read_settings
from schemas.run_filter import RunFilter

if TYPE_CHECKING:
    from pipeline.storage.program_verdict import ProgramVerdict
    from pipeline.storage.reader import RunReader

app = typer.Typer(no_args_is_help=True)

_COLUMNS = (
    "created_at_utc",
    "run_id",
    "status",
    "risk_level",
    "mode",
    "tool_id",
    "event_type",
    "artifact_sha256",
)
_STATUS_STYLES = {"OK": "green", "BLOCKED": "bold red", "ERROR": "bold magenta"}
_ADVISORY_COLUMNS = ("created_at_utc", "advisory_id", "kind", "engine_id", "title")
_ATTACHMENT_COLUMNS = ("sha256", "kind", "mime", "size_bytes", "filename")
_VERIFIED_COLUMNS = ("sha256", "ok", "rule", "error", "kind", "filename")
_SHOWN_HASH_DIGITS = 12


RunIdArgument = Annotated[str, typer.Argument(metavar="RUN_ID")]


@app.command("list")
@with_options(wanted=run_filter())
def list_command(wanted: RunFilter, as_json: AsJson = False) -> None:
    """List runs, newest first."""
    with _reader() as reader:
        page = reader.list_runs(wanted)
    if as_json:
        print_json(page.as_json())
        return
    rows = [[_cell(name, item[name]) for name in _COLUMNS] for item in page.items]
    for item, row in zip(page.items, rows, strict=True):
        if item.get("archived"):
            row[-1] = f"{row[-1]} archived"
    print_table(_COLUMNS, rows, whole="run_id")
    if page.next_cursor is not None:
        note(f"More: --cursor {page.next_cursor}")
    elif not page.items:
        note("No run fits.")


@app.command("of-file")
def of_file(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Programs; - is standard input.")
    ],
    as_json: AsJson = False,
) -> None:
    """Say whether exactly these bytes may be cut; exit 4 if not, 3 if no run knows them."""
    from pipeline.storage.program_verdict import program_verdict

    hashes = [_sha256_of(name) for name in files]
    with _reader() as reader:
        verdicts = [program_verdict(reader, each) for each in hashes]
    if as_json:
        print_json(
            {
                "may_cut": all(verdict.may_cut for verdict in verdicts),
                "files": [
                    {"file": name, **asdict(verdict)}
                    for name, verdict in zip(files, verdicts, strict=True)
                ],
            }
        )
    else:
        for name, verdict in zip(files, verdicts, strict=True):
            print_text(f"{name}: {verdict.words}")
    statuses = [_exit_status(verdict) for verdict in verdicts]
    if any(statuses):
        raise typer.Exit(max(statuses))


def _sha256_of(name: str) -> str:
    with input_faults(f"{name} cannot be read"):
        if name == STANDARD_INPUT:
            given = hashlib.file_digest(sys.stdin.buffer, "sha256")  # type: ignore[arg-type]  # readinto
            return given.hexdigest()
        with Path(name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _exit_status(verdict: "ProgramVerdict") -> int:
    if verdict.may_cut:
        return 0
    return RefusedError.exit_status if verdict.is_known else NotFoundError.exit_status


@app.command()
def show(run_id: RunIdArgument, as_json: AsJson = False) -> None:
    """Show one run: its artifact, checked against the index; --json with its advisories."""
    from pipeline.core.json.strict import parse_object
    from pipeline.core.runs.words import explained

    with _reader() as reader:
        found = reader.find(run_id)
        shown, _ = parse_object(reader.show(found).content)
    if as_json:
        print_json(shown)
        return
    run, given = found.run, shown.get("given", {})
    print_pairs(
        [
            ("run_id", run.run_id),
            ("status", run.status),
            ("may_cut", str(run.may_cut).lower()),
            ("risk_level", run.risk_level),
            ("block_reason", explained(run.block_reason) or "-"),
            ("artifact", run.artifact_path),
            ("sha256", run.artifact_sha256),
            ("size_bytes", run.size_bytes),
            ("gcode_sha256", run.program.sha256 if run.program else "-"),
            ("gcode_known_by", run.program.known_by if run.program else "-"),
            ("missing_attachments", ", ".join(shown["missing_attachments"]) or "-"),
            *(
                (f"given {name}", json.dumps(value, ensure_ascii=False))
                for name, value in given.items()
            ),
        ]
    )
    print_json(found.document(), indent=2)


@app.command()
def download(
    run_id: RunIdArgument,
    to: Annotated[
        Path | None, typer.Option(help="File to write; standard output if not given.")
    ] = None,
) -> None:
    """Write the exact bytes of a run's artifact, checked against the index."""
    with _reader() as reader:
        content = reader.find(run_id).content
    if to is None:
        print_bytes(content)
        return
    # Never over an existing file: what was downloaded before may be evidence.
    with input_faults(f"{to} cannot be written", "; name a new file"), to.open("xb") as file:
        file.write(content)
    note(f"{counted(len(content), 'byte')} to {to}")


@app.command()
def draw(run_id: RunIdArgument, as_json: AsJson = False) -> None:
    """Draw the program of a run as programmed: an SVG picture, or its moves with --json."""
    from pipeline.core.toolpath import TEXT_LIMIT_BYTES, read_toolpath
    from pipeline.core.toolpath.svg import sentences, svg_of

    with _reader() as reader:
        program = reader.program_of(run_id, TEXT_LIMIT_BYTES + 1)
    toolpath = read_toolpath(program.content)
    if as_json:
        named = {"run_id": run_id, "gcode_sha256": program.sha256}
        print_json({**toolpath.document(), **named})
        return
    title = f"What the program {program.sha256} of the run {run_id} draws"
    print_bytes(svg_of(toolpath, title).encode())
    for sentence in sentences(toolpath):
        note(sentence)


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A")],
    b: Annotated[str, typer.Argument(metavar="B")],
    as_json: AsJson = False,
) -> None:
    """Show how run B differs from run A."""
    with _reader() as reader:
        found = reader.diff(a, b)
    if as_json:
        print_json(found)
    else:
        print_diff(found)


@app.command()
def advisories(run_id: RunIdArgument, as_json: AsJson = False) -> None:
    """List the advisories of a run, oldest first."""
    with _reader() as reader:
        answer = reader.advisories(run_id)
    if as_json:
        print_json(answer)
    else:
        _print_fields(_ADVISORY_COLUMNS, answer["advisories"], whole="advisory_id")


@app.command()
def attachments(run_id: RunIdArgument, as_json: AsJson = False) -> None:
    """List the attachments of a run, in its order."""
    with _reader() as reader:
        answer = reader.attachments_of(run_id)
    if as_json:
        print_json(answer)
    else:
        _print_fields(_ATTACHMENT_COLUMNS, answer["attachments"], whole="sha256")


@app.command()
def verify(run_id: RunIdArgument, as_json: AsJson = False) -> None:
    """Read every byte of a run's attachments; exit 5 if one has changed."""
    with _reader() as reader:
        answer = reader.verify_attachments(run_id)
    verification = answer["verification"]
    if as_json:
        print_json(answer)
    else:
        _print_fields(_VERIFIED_COLUMNS, verification["results"], whole="sha256")
        bad = sum(not result["ok"] for result in verification["results"])
        note(f"{counted(verification['count'], 'attachment')}, {bad} not as written")
    if not verification["ok"]:
        raise typer.Exit(IntegrityError.exit_status)


_of_all = with_options(wanted=run_filter(leaving_out={"limit", "cursor"}))
app.command("export")(_of_all(export))


def _reader() -> "closing[RunReader]":
    from pipeline.storage.reader import RunReader
    from pipeline.storage.store import open_to_read

    return closing(RunReader(open_to_read(read_settings())))


def _print_fields(
    columns: Sequence[str], items: Sequence[Mapping[str, object]], *, whole: str
) -> None:
    rows = [[_cell(name, item.get(name)) for name in columns] for item in items]
    print_table(columns, rows, whole=whole)
    if not items:
        note("None.")


def _cell(name: str, value: object) -> str | Text:
    text = "-" if value is None else str(value)
    if name == "status":
        return Text(visible(text), _STATUS_STYLES.get(text, ""))
    if name == "created_at_utc" and is_watched():
        # To the second: what a program reads has every digit.
        return text[: len("2025-12-18T14:03:22")] + "Z"
    return text[:_SHOWN_HASH_DIGITS] if name.endswith("_sha256") else text


VALUE_LIMIT_CHARACTERS = 100
"""Longest text of a value, or of a path, that is shown whole; a quoted SHA-256 has 66."""

_SEVERITY_STYLES = {"CRITICAL": "bold red", "WARNING": "bold yellow", "INFO": "bold cyan"}
_OPS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}
_NESTED_GROUPS = frozenset({"claimed_hashes", "context", "decision", "hashes", "meta", "outputs"})


def print_diff(diff: dict[str, Any], console: Console | None = None) -> None:
    """Print a `RunDiff`; without colours where the console is no terminal."""
    for line in _lines(diff):
        print_styled(line, console)


def _lines(diff: dict[str, Any]) -> Iterator[Text]:
    yield Text(visible(diff["summary"]), _SEVERITY_STYLES[diff["diff_severity"]])
    for side, sign, style in (("a", "-", "red"), ("b", "+", "green")):
        run = diff[side]
        yield Text(f"{sign} {side}: {run['run_id']}  {run['created_at_utc']}", style)
    fields = dict(_fields(diff["diff"]))
    for path, leaf in fields.items():
        yield _line(path, _op(leaf), leaf)
    for item in diff["items"]:
        if _field_of(item) not in fields:
            yield _line(item["path"], item["op"], item)
    if diff["truncated"]:
        more = sum(diff["counts"].values()) - len(diff["items"])
        yield Text(f"... and {more:,} more", "dim")


def _fields(groups: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield path and leaf of every field, except those of feasibility: its items have more detail.

    The other groups are shown from here because a long list of items may have been cut.
    """
    for name, found in groups.items():
        if name in _NESTED_GROUPS:
            yield from ((dotted_path((name, field)), leaf) for field, leaf in found.items())
        elif name != "feasibility":
            yield name, found


def _field_of(item: dict[str, Any]) -> str:
    """Return the path of the field that an item lies in: `decision.warnings`."""
    return ".".join(item["path"].split(".")[:2])


def _op(leaf: dict[str, Any]) -> str:
    if "a" not in leaf:
        return "added"
    return "changed" if "b" in leaf else "removed"


def _line(path: str, op: str, sides: dict[str, Any]) -> Text:
    sign, style = _OPS[op]
    line = Text(f"{sign} {visible(_cut(path))}: ", style)
    values = [_shown(sides[side]) for side in ("a", "b") if side in sides]
    return line.append(" -> ".join(values), "default")


def _shown(value: object) -> str:
    return visible(_cut(json.dumps(value, ensure_ascii=False)))


def _cut(text: str) -> str:
    if len(text) <= VALUE_LIMIT_CHARACTERS:
        return text
    return text[:VALUE_LIMIT_CHARACTERS] + "..."

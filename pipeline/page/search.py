"""One box for everything that has a name: a run_id, any SHA-256, a record, an advisory_id."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from pipeline.api.answers import ApiError
from pipeline.api.dependencies import ApiDependencies, ApiDeps
from pipeline.core.record import RecordId
from pipeline.errors import IntegrityError, NotFoundError, StoreNotReadyError
from pipeline.ledger.leaf import LedgerLeaf
from pipeline.page.rendering import page
from pipeline.page.route import PageRoute
from pipeline.storage.index.named import MOST_NAMED, Named
from pipeline.storage.ledger_key import open_store_logs
from pipeline.storage.reader import RunReader
from pipeline.topics import dead_letter_topics
from schemas.fields import is_advisory_id, is_run_id, is_sha256

router = APIRouter(route_class=PageRoute)

_SEE_OTHER: Final = 303
_LONGEST: Final = 500
_RECORD = re.compile(r"[^/]+/[^/]+/[^/]+")
_OUTCOMES: Final = {
    "run": "made the run",
    "advisory": "made an advisory of the run",
    "duplicate": "was a duplicate of what made the run",
    "conflict": "was refused: another request has this id",
    "rejected": "was rejected",
}
"""What a leaf says of its record."""


@dataclass(frozen=True, slots=True)
class Match:
    """Something that has the name.

    Attributes:
        path: Its page; None where it has none.
        words: What it is.
        is_it: Whether that page is about what was looked for, and not only related to it.
    """

    path: str | None
    words: str
    is_it: bool = True


@router.get("/search")
async def search(
    request: Request, deps: ApiDeps, q: Annotated[str | None, Query()] = None
) -> Response:
    """Lead to the one page that has the name, or list those that have."""
    return await deps.lookup(_answer, request, deps, (q or "").strip())


def _answer(request: Request, deps: ApiDependencies, wanted: str) -> Response:
    matches = list(_matches(deps, wanted)) if len(wanted) <= _LONGEST else []
    paths = {match.path for match in matches}
    if all(match.is_it for match in matches) and len(paths) == 1 and (path := paths.pop()):
        return RedirectResponse(path, _SEE_OTHER)
    shown, digest = matches[:MOST_NAMED], wanted.lower()
    return page(
        request,
        "search.html",
        200 if matches or not wanted else 404,
        wanted=wanted[:_LONGEST],
        matches=shown,
        has_more=len(matches) > len(shown),
        digest=digest if is_sha256(digest) else None,
    )


def _matches(deps: ApiDependencies, wanted: str) -> Iterator[Match]:
    reader = deps.reader
    if is_sha256(wanted.lower()):
        yield from map(_match, reader.named_by_hash(wanted.lower()))
        refusing = reader.runs_of_program(wanted.lower()).refusing
        if refusing is not None:
            words = f"a program that the run {refusing.run_id} refuses"
            yield Match(f"/run/{refusing.run_id}", words, is_it=False)
    elif _RECORD.fullmatch(wanted):
        yield from _of_record(deps, wanted)
    else:
        if is_run_id(wanted) and _has_run(reader, wanted):
            yield Match(f"/run/{wanted}", "a run")
        if is_advisory_id(wanted):
            yield from map(_match, reader.named_by_advisory(wanted))


def _match(named: Named) -> Match:
    of_kind = f" of kind {named.kind}" if named.kind else ""
    return Match(f"/run/{named.run_id}", f"{named.what}{of_kind} of the run {named.run_id}")


def _has_run(reader: RunReader, run_id: str) -> bool:
    try:
        reader.rows_of(run_id)
    except NotFoundError:
        return False
    except IntegrityError:
        # Its page says what is wrong.
        return True
    return True


def _of_record(deps: ApiDependencies, wanted: str) -> Iterator[Match]:
    try:
        record = RecordId.parse(wanted)
    except ValueError:
        return
    if record.topic in dead_letter_topics(deps.settings.prefix):
        yield Match(f"/dead-letters/{wanted}", "a dead letter")
        return
    try:
        logs = open_store_logs(deps.settings, deps.reader.store)
    except StoreNotReadyError:
        # It names a path of the server.
        message = "This server does not have the public key of the ledger, so it reads no log."
        raise ApiError(503, "NO_LEDGER_KEY", message) from None
    for log in reversed(logs.ids()):
        if (log.topic, log.partition) == (record.topic, record.partition):
            found = logs.open(log)
            index = found.index_of(record.offset)
            if index is not None:
                leaf, place = found.leaf(index), f"leaf {index:,} of the log {log.path}"
                yield from _of_leaf(deps.reader, leaf, wanted, place)


def _of_leaf(reader: RunReader, leaf: LedgerLeaf, record: str, place: str) -> Iterator[Match]:
    """Yield what a record made; of one that was refused, the run that it did not make apart."""
    of_run = f" {leaf.run_id}" if leaf.run_id and leaf.kind != "rejected" else ""
    because = f" ({leaf.code})" if leaf.code else ""
    said = f"This record {_OUTCOMES[leaf.kind]}{of_run}{because}: {place}"
    if leaf.kind in {"conflict", "rejected"}:
        yield Match(f"/dead-letters?source={record}", said, is_it=False)
        if leaf.kind == "conflict":
            words = f"The run {leaf.run_id}, which another request made"
            yield Match(f"/run/{leaf.run_id}", words, is_it=False)
    elif leaf.run_id and _has_run(reader, leaf.run_id):
        yield Match(f"/run/{leaf.run_id}", said)
    else:
        yield Match(None, f"{said}. This run is not stored here")

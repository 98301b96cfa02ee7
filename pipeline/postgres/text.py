r"""Text with any character: PostgreSQL stores none with a NUL, which a reason or a name may have.

NUL is kept as U+0001 U+0001, and U+0001 as U+0001 U+0002. Texts stay in the order of their bytes,
and one is the beginning of another as before.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from psycopg import BaseConnection, Cursor
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.types.string import StrDumper, StrDumperUnknown

_NUL: Final = "\x00"
_ESCAPE: Final = "\x01"


def kept(text: str) -> str:
    """Return `text` as it is kept."""
    if _NUL in text or _ESCAPE in text:
        return text.replace(_ESCAPE, "\x01\x02").replace(_NUL, "\x01\x01")
    return text


def kept_rows(rows: Sequence[tuple[Any, ...]]) -> Iterable[tuple[Any, ...]]:
    """Return `rows` with every text as it is kept; one look at all of them, where none has any."""
    texts = "".join([value for row in rows for value in row if type(value) is str])
    if _NUL not in texts and _ESCAPE not in texts:
        return rows
    return [tuple(kept(each) if type(each) is str else each for each in row) for row in rows]


class _Keep(StrDumper):
    def dump(self, obj: str) -> Buffer | None:
        return super().dump(kept(obj))


class _KeepUnknown(StrDumperUnknown):
    def dump(self, obj: str) -> Buffer | None:
        return super().dump(kept(obj))


class _Read(Loader):
    def load(self, data: Buffer) -> str:
        text = bytes(data).decode()
        if _ESCAPE in text:
            return text.replace("\x01\x01", _NUL).replace("\x01\x02", _ESCAPE)
        return text


def copy_as_is(cursor: Cursor[Any]) -> None:
    """Let a cursor copy rows whose texts are as they are kept: to look at each takes as long."""
    cursor.adapters.register_dumper(str, StrDumperUnknown)


def adapt(connection: BaseConnection[Any]) -> None:
    """Keep and read every text of a connection in this way."""
    for dumper in (_Keep, _KeepUnknown):
        connection.adapters.register_dumper(str, dumper)
    for name in ("text", "varchar"):
        connection.adapters.register_loader(name, _Read)

"""HTML that is made of values: every text is escaped, and nothing in it can act."""

import re
from html import escape

# Control characters, and what reorders a line: it would show another text than is there.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


class Html(str):
    """A text that is HTML already; every other one is escaped on its way in."""

    __slots__ = ()


def element(name: str, *parts: object, **attributes: str) -> Html:
    """Return an element; `class_` stands for the attribute of that name."""
    named = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items()
    )
    return Html(f"<{name}{named}>{joined(parts)}</{name}>")


def joined(parts: object) -> Html:
    """Return parts one after the other, each escaped unless it is HTML."""
    assert isinstance(parts, tuple | list)
    return Html("".join(text(part) for part in parts))


def text(value: object) -> Html:
    """Return a value as HTML shows it; what would act or hide is spelt out."""
    if isinstance(value, Html):
        return value
    shown = _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", str(value))
    return Html(escape(shown))

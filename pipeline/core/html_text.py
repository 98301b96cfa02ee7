"""HTML that is made of values: every text is escaped, and nothing in it can act."""

from html import escape

from pipeline.core.visible_text import visible_lines


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
    return Html(escape(visible_lines(str(value))))

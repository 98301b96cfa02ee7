"""Templates and their values as HTML: escaped, with every character of a text seen.

Whatever is written into a template passes `_seen`, so that no template can forget it. What stays is
to set a text of others apart (`|text`, a `<bdi>`), so that its direction ends with it.
"""

import re
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from pipeline.core.json.canonical import canonical_json
from pipeline.core.runs.words import explained
from pipeline.core.visible_text import named_lines
from pipeline.page.assets import asset_path
from schemas.timestamps import parse_timestamp

NAVIGATION = (
    ("Runs", "/"),
    ("May it be cut?", "/file"),
    ("Compare", "/compare"),
    ("Ledger", "/ledger"),
    ("Audits", "/audits"),
    ("Flow", "/flow"),
    ("Dead letters", "/dead-letters"),
    ("API", "/docs"),
)
"""The names of pages in the head of every page, and their paths."""

_NONE = "–"
_WEB = re.compile(r"https?://[^\s]+", re.IGNORECASE)
_REL = "nofollow noopener noreferrer"
_SHORT_DIGITS = 12
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "connect")),
        *("form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"),
    )
)
PAGE_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "same-origin",
}


def page(
    request: Request,
    template: str,
    status: int = 200,
    **values: Any,  # noqa: ANN401  # what the template names
) -> HTMLResponse:
    """Return a page.

    Args:
        request: For the address of the page, and who is signed in.
        template: A file of `pipeline/page/templates`.
        status: Of HTTP.
        values: What the template shows. Of texts, only those of ours may be Markup.
    """
    content = (
        _environment()
        .get_template(template)
        .render(
            path=request.url.path,
            signed_in=getattr(request.state, "signed_in", None),
            **values,
        )
    )
    return HTMLResponse(content, status, PAGE_HEADERS)


@cache
def _environment() -> Environment:
    templates = files("pipeline.page") / "templates"
    found = Environment(
        loader=FunctionLoader(lambda name: (templates / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_seen,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.globals |= {
        "asset": asset_path,
        "navigation": NAVIGATION,
        "version": version("rmos-runs"),
        "now": lambda: datetime.now(UTC),
    }
    found.filters |= {
        "text": set_apart,
        "exact": exact,
        "explained": explained,
        "moment": moment,
        "short": short,
        "json": json_text,
    }
    return found


def _seen(value: object) -> object:
    """Return what is written in place of a value of a template."""
    if value is None:
        return _NONE
    return named_lines(value) if type(value) is str else value


def exact(value: object) -> Markup:
    """Return a text as it is, for the value of a field: it must go back as it came."""
    return Markup("") if value is None else escape(str(value))


def set_apart(value: object) -> Markup:
    """Return a text of others, whose direction changes nothing around it."""
    if value is None:
        return Markup('<span class="none">–</span>')
    return Markup("<bdi>{}</bdi>").format(named_lines(str(value)))


def moment(timestamp: str | datetime) -> Markup:
    """Return a time of ours, to the second; the exact one is its `datetime`."""
    if isinstance(timestamp, datetime):
        found, exactly = timestamp, timestamp.isoformat()
    else:
        exactly = timestamp
        try:
            found = parse_timestamp(timestamp)
        except ValueError:
            # Of an older store it may be any text.
            return set_apart(timestamp)
    shown = found.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return Markup('<time datetime="{}">{} UTC</time>').format(exactly, shown)


def moment_of(milliseconds: int | None) -> datetime | None:
    """Return a time of a record; None where it has none, or one that no calendar has."""
    if milliseconds is None or milliseconds < 0:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def short(name: str) -> Markup:
    """Return the first digits of a hash or an id; the whole is its title."""
    if len(name) <= _SHORT_DIGITS + 4:
        return Markup("<code>{}</code>").format(named_lines(name))
    return Markup('<code title="{}">{}…</code>').format(
        named_lines(name), named_lines(name[:_SHORT_DIGITS])
    )


def json_text(value: object) -> str:
    """Return a value as canonical JSON, with every digit of its numbers."""
    return canonical_json(value).decode()


def markdown_cells(text: str) -> int:
    """Return at least as many cells as the tables of a Markdown text have.

    Each line below a header may be a row, and a row has all columns.
    """
    lines = text.splitlines()
    return (max((line.count("|") for line in lines), default=0)) * len(lines)


def markdown_html(text: str) -> Markup:
    """Return Markdown of others as HTML that loads and runs nothing; every character is seen.

    HTML in it is text, pictures are text, and a link leads to http or https, with nothing handed
    over.
    """
    reader = _reader()
    tokens = reader.parse(named_lines(text))
    for token in tokens:
        _restrain(token)
    return Markup(reader.renderer.render(tokens, reader.options, {}))  # noqa: S704  # made here


@cache
def _reader() -> MarkdownIt:
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    reader.validateLink = _is_web_address  # type: ignore[method-assign]  # its documented hook
    return reader


def _is_web_address(url: str) -> bool:
    return _WEB.fullmatch(url) is not None


def _restrain(token: Token) -> None:
    if token.type in {"heading_open", "heading_close"}:
        # The headings of a page are ours; those of a text are only strong.
        token.tag = "p"
        if token.nesting == 1:
            token.attrSet("class", "heading")
    elif token.type == "link_open":
        token.attrSet("rel", _REL)
    elif token.type in {"th_open", "td_open"}:
        # Alignment is a style attribute, which the policy refuses.
        token.attrs.pop("style", None)
    elif token.type == "fence":
        token.info = ""
    for child in token.children or ():
        _restrain(child)

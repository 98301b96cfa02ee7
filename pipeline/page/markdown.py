"""Markdown of advisories as HTML: text, lists, tables and links, and nothing that loads or runs.

HTML in it is text, pictures are text, and a link leads to http or https, with nothing handed over.
"""

import re
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from pipeline.core.visible_text import named_lines

_WEB = re.compile(r"https?://[^\s]+", re.IGNORECASE)
_REL = "nofollow noopener noreferrer"


def markdown_html(text: str) -> Markup:
    """Return `text` as HTML; every character of it is seen."""
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

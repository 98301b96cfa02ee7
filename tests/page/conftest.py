"""The pages over real files, asked without a network and read as a browser reads them."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.page import run
from pipeline.page.pages import pages
from tests.api.conftest import Api, api_over

HTML = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
_VOID = {"meta", "link", "input", "img", "br", "hr", "wbr", "source"}


@dataclass(slots=True)
class Element:
    """One element of a page."""

    name: str
    attributes: dict[str, str | None]
    children: list["Element | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(each if isinstance(each, str) else each.text for each in self.children)

    @property
    def words(self) -> str:
        """Its text, with one space wherever there is any."""
        return " ".join(self.text.split())

    def all(self, name: str = "", /, **attributes: str) -> Iterator["Element"]:
        """Yield what is below; `class_` is one word of the class."""
        for each in self.children:
            if isinstance(each, Element):
                if each.fits(name, attributes):
                    yield each
                yield from each.all(name, **attributes)

    def fits(self, name: str, attributes: dict[str, str]) -> bool:
        wanted_class = attributes.get("class_")
        return (
            name in {"", self.name}
            and (
                wanted_class is None or wanted_class in (self.attributes.get("class") or "").split()
            )
            and all(
                self.attributes.get(key) == value
                for key, value in attributes.items()
                if key != "class_"
            )
        )

    def one(self, name: str = "", /, **attributes: str) -> "Element":
        found = list(self.all(name, **attributes))
        assert len(found) == 1, (name, attributes, len(found))
        return found[0]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].name == tag, f"</{tag}> closes <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read_html(text: str) -> Element:
    """Return the root of a page; every element must be closed."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == [reader.root]
    return reader.root


@dataclass(frozen=True, slots=True)
class Site:
    """The pages of a store."""

    api: Api

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.api.http.get(path, headers={**HTML, **headers})

    async def page(self, path: str, status: int = 200, **headers: str) -> Element:
        """Return a page, which must be one."""
        answer = await self.get(path, **headers)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        return read_html(answer.text)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pages wait for a drawing as long as a slow machine takes."""
    for name in ("AT_ONCE_SECONDS", "DRAWING_SECONDS"):
        monkeypatch.setattr(run, name, 60.0)


@asynccontextmanager
async def site_over(root: Path, **options: Any) -> AsyncIterator[Site]:
    async with api_over(root, pages=pages(), **options) as api:
        yield Site(api)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with site_over(tmp_path / "store") as running:
        yield running

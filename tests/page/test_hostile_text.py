"""Texts of others on every page: shown as text; nothing runs, nothing loads from elsewhere."""

import re
from urllib.parse import quote

import pytest

from tests.builders import advisory_request, attachment, red_request, run_request
from tests.page.conftest import Element, Site, read_html

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "attribute": '"\' onmouseover=alert(1) autofocus x="',
    "image": "<img src=https://evil.example/x.png onerror=alert(1)>",
    "svg": "<svg onload=alert(1)><a xlink:href='javascript:alert(1)'>x</a></svg>",
    "template": "{{ 7*7 }}{% raw %}${7*7}",
    "end": "</title></main></body><base href=https://evil.example/>--><![CDATA[",
    "direction": "abc\u202egnp.exe\u2066\u200b\ufeff",
    "entity": "&lt;b&gt; &#x3c;script&#x3e;",
    "link": "[x](javascript:alert(1)) <https://evil.example/?a=1> ![p](https://evil.example/p.png)",
}
OWN = re.compile(r"/(?!/)|#|https://evil\.example/(\?a=1|p\.png)$")
"""Where a page may lead to: here, or by a link that an advisory shows as one."""

RUN, RED = "run_1", "run_2"
PAGES = (
    *("/", f"/run/{RUN}", f"/run/{RED}", f"/run/{RUN}/verified", f"/compare?a={RUN}&b={RED}"),
    *("/?tool_id_prefix={text}", "/?machine_id={text}&cursor=x", "/search?q={text}"),
    *("/file?sha256={text}", "/compare?a={text}", "/run/{text}"),
)


def store(site: Site, text: str) -> None:
    label, name = text[:200], text.replace("/", "|")[:200]
    shared = {
        **dict.fromkeys(("tool_id", "material_id", "machine_id", "mode", "event_type"), label),
        **dict.fromkeys(("workflow_session_id", "engine_version", "config_fingerprint"), label),
        "notes": (text + "\n") * (20_000 // (len(text) + 1)),
        "errors": [text],
        "meta": {text: [text, {text: text}], "big": 2**63, "large": 1e308},
        "request": {text: text, "nested": {text: [1e308, 2**63, text]}},
        "attachments": [attachment(kind="geometry", filename=name)],
    }
    evaluation = {"warnings": [text], "rules_triggered": [text], text: text, "n": [{text: 2**63}]}
    site.api.add_runs(
        run_request(run_id=RUN, feasibility={"risk_level": "GREEN", **evaluation}, **shared),
        red_request(
            run_id=RED,
            feasibility={"risk_level": "RED", "block_reason": text, **evaluation},
            **shared,
        ),
    )
    site.api.add_advisories(
        advisory_request(
            run_id=RUN, title=text, engine_id=label, engine_version=label, content_text=text
        )
    )


def faults(page: Element) -> list[str]:
    """Return whatever a text could have put into a page."""
    found = []
    for each in page.all():
        if each.name in {"base", "iframe", "object", "embed", "style", "svg", "form"} and not (
            each.name == "form" and str(each.attributes.get("action")).startswith("/")
        ):
            found.append(each.name)
        if each.name == "script" and not str(each.attributes.get("src")).startswith("/static/"):
            found.append("script")
        for name, value in each.attributes.items():
            if name.startswith("on") or name in {"style", "srcdoc", "autofocus"}:
                found.append(name)
            if name in {"href", "src", "action", "hx-get"} and not OWN.match(value or ""):
                found.append(f"{name}={value}")
            if name == "src" and "evil" in (value or ""):
                found.append(f"src={value}")
    return found


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
async def test_a_text_of_others_stays_text_on_every_page(site: Site, text: str) -> None:
    store(site, text)
    for path in PAGES:
        # No name here holds a slash, so such a path leads to no page.
        asked = text[:200].replace("/", "") if path == "/run/{text}" else text[:200]
        answer = await site.get(path.format(text=quote(asked, safe="")))
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        page = read_html(answer.text)
        assert faults(page) == [], path
        for unseen in "\u202e\u2066\u200b\ufeff":
            shown = answer.text
            for value in re.findall(r'value="[^"]*"|hx-get="[^"]*"', shown):
                # What somebody typed goes back as it came.
                shown = shown.replace(value, "")
            assert unseen not in shown, path


@pytest.mark.parametrize("name", ["script", "image", "entity", "template"])
async def test_it_is_shown_as_it_was_sent(site: Site, name: str) -> None:
    store(site, HOSTILE[name])
    shown = await site.page(f"/run/{RED}")
    assert shown.one("p", class_="verdict").text.endswith(HOSTILE[name])
    assert HOSTILE[name] in (await site.page("/")).one("tbody").text


async def test_what_is_not_seen_is_spelt_out(site: Site) -> None:
    store(site, HOSTILE["direction"])
    shown = await site.page(f"/run/{RED}")
    assert "abc‹U+202E›gnp.exe‹U+2066›‹U+200B›‹U+FEFF›" in shown.one("p", class_="verdict").text
    assert "9223372036854775808" in shown.one("main").text


def test_a_fault_is_found() -> None:
    bad = {
        *("<script>x</script>", "<p onclick='x'></p>", "<a href='javascript:x'></a>"),
        *("<img src='https://evil.example/?a=1'>", "<a href='//evil.example'></a>"),
        *("<style></style>", "<p style='x'></p>", "<form action='https://x'></form>"),
    }
    assert [each for each in bad if not faults(read_html(each))] == []

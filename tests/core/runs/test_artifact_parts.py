"""The request as an artifact shows it: no client's verdict, no secret, bounded width."""

import json
import re
import sys
from string import ascii_lowercase
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.json.canonical import canonical_json
from pipeline.core.runs import artifact_parts
from pipeline.core.runs.artifact_parts import is_shown_whole, summarise_request
from tests.builders import document, judged, red_request, run_request, sha256
from tests.json_values import json_values


def shown(request: dict[str, Any]) -> dict[str, Any]:
    return summarise_request(request).shown


def wide_dict(width: int) -> dict[str, int]:
    return {f"k{number}": number for number in range(width)}


def test_an_ordinary_request_is_shown_as_it_is() -> None:
    request = run_request()["request"]
    assert shown(request) == request
    assert summarise_request(request).complete is None


@pytest.mark.parametrize("key", ["feasibility", "safety"])
def test_client_verdicts_go_at_every_depth(key: str) -> None:
    verdict = {"risk_level": "GREEN"}
    request = {key: verdict, "a": {key: 1, "b": [{key: None, "c": 1}, [[{key: []}]]]}}
    assert shown(request) == {"a": {"b": [{"c": 1}, [[{}]]]}}


@pytest.mark.parametrize("key", ["Feasibility", "safety_factor", "is_safety", "SAFETY"])
def test_keys_that_only_resemble_a_verdict_stay(key: str) -> None:
    assert shown({key: 1}) == {key: 1}


SECRET_WORDS = ["password", "passwd", "token", "secret", "api_key", "api-key", "apikey"]
SECRET_WORDS += ["credential", "PASSWORD", "accessToken", "X-Auth-Token", "ApiKey"]
SECRET_WORDS += ["to\u212aen"]  # KELVIN SIGN folds to k
SECRET_WORDS += ["\u017fecret"]  # LATIN SMALL LETTER LONG S folds to s


def nested(value: Any, depth: list[str]) -> dict[str, Any]:
    """`value` below objects and lists, the outermost first."""
    for around in reversed(depth):
        value = [0, value] if around == "list" else {"a": value}
    return {"top": value}


@settings(max_examples=300)
@given(
    st.sampled_from(SECRET_WORDS),
    st.tuples(st.sampled_from(["", "db_", "aws-", "é"]), st.sampled_from(["", "_2", "s"])),
    json_values(2),
    st.lists(st.sampled_from(["list", "object"]), max_size=5),
)
def test_values_under_secret_keys_are_redacted_at_every_depth(
    word: str, around: tuple[str, str], value: Any, depth: list[str]
) -> None:
    key = word.join(around)
    assert shown({key: value}) == {key: "[redacted]"}
    assert shown(nested({key: value}, depth)) == nested({key: "[redacted]"}, depth)


@pytest.mark.parametrize("word", SECRET_WORDS)
def test_every_secret_word_counts_by_itself(word: str) -> None:
    assert shown({word: {"a": {"b": "hunter2"}}}) == {word: "[redacted]"}


def test_four_letters_of_all_stand_for_some_of_ascii() -> None:
    others = "".join(map(chr, [*range(0x80, 0xD800), *range(0xE000, sys.maxunicode + 1)]))
    found = {each for letter in ascii_lowercase for each in re.findall(letter, others, re.I)}
    assert {each.encode() for each in found} == set(artifact_parts._LETTERS_FOR_ASCII)


def test_a_request_in_any_other_language_is_known_to_be_shown_whole() -> None:
    for text, whole in (("Prüfung, 検査", True), ("\u017f", False), ("\u0131", False)):
        assert is_shown_whole({"note": text}, canonical_json({"note": text})) is whole


@pytest.mark.parametrize("key", ["pass", "passw", "api", "api key", "apis_keys", "key", "secre"])
def test_keys_without_the_whole_word_stay(key: str) -> None:
    assert shown({key: "value", "text": "password"}) == {key: "value", "text": "password"}


@pytest.mark.parametrize("where", ["top", "dict", "list"])
@pytest.mark.parametrize("length", [200, 201, 1000])
def test_lists_above_200_are_replaced_by_their_length(where: str, length: int) -> None:
    wide = list(range(length))
    request: Any = {"top": {"a": wide}, "dict": {"a": {"b": wide}}, "list": {"a": [wide]}}[where]
    placeholder = {"type": "list", "len": length}
    expected = json.loads(json.dumps(request))
    if length > 200:
        expected = {
            "top": {"a": placeholder},
            "dict": {"a": {"b": placeholder}},
            "list": {"a": [placeholder]},
        }[where]
    summary = summarise_request(request)
    assert summary.shown == expected
    assert summary.complete == (request if length > 200 else None)


@pytest.mark.parametrize("length", [200, 201])
def test_objects_above_200_keys_below_the_top_are_replaced_by_their_length(length: int) -> None:
    request = {"a": [wide_dict(length)], "b": wide_dict(length)}
    placeholder = {"type": "dict", "len": length}
    expected = request if length == 200 else {"a": [placeholder], "b": placeholder}
    assert shown(request) == expected


@pytest.mark.parametrize("width", [80, 81, 300])
def test_at_most_80_keys_at_the_top_in_sorted_order(width: int) -> None:
    request = {f"k{number:03}": number for number in reversed(range(width))}
    summary = summarise_request(request)
    assert sorted(summary.shown) == [f"k{number:03}" for number in range(min(width, 80))]
    assert summary.complete == (request if width > 80 else None)


def test_keys_are_sorted_by_code_point() -> None:
    request = dict.fromkeys(["\U00010000", "\uffff", "é", "a", "B"], 1) | {
        f"0{number:02}": 1 for number in range(76)
    }
    assert set(shown(request)) == request.keys() - {"\U00010000"}


def test_verdicts_and_secrets_go_before_anything_is_counted() -> None:
    just = wide_dict(200) | {"safety": 1}
    top = {f"t{number:02}": 1 for number in range(80)} | {"feasibility": {}}
    assert shown({"a": just}) == {"a": wide_dict(200)}
    assert summarise_request(top).complete is None
    hidden = {"password": list(range(500))}
    assert summarise_request(hidden).shown == {"password": "[redacted]"}
    assert summarise_request(hidden).complete is None


def test_what_was_cut_is_kept_without_verdicts_and_secrets() -> None:
    request = {"moves": [0] * 201, "safety": {"ok": True}, "x": {"api_key": "hunter2"}}
    complete = summarise_request(request).complete
    assert complete == {"moves": [0] * 201, "x": {"api_key": "[redacted]"}}


@pytest.mark.parametrize("build", [run_request, red_request])
def test_the_whole_request_is_the_last_attachment_of_any_run(build: Any) -> None:
    wide = {"moves": [1.0] * 201, "token": "hunter2", "safety": {"risk_level": "GREEN"}}
    run = judged(build(request=wide, outputs={"gcode_text": "G1 X1\n" * 40_000}))
    written = run.built.document
    content = canonical_json({"moves": [1.0] * 201, "token": "[redacted]"})
    assert written["request_summary"] == {
        "moves": {"type": "list", "len": 201},
        "token": "[redacted]",
    }
    assert written["attachments"][-1] == {
        "sha256": sha256(content),
        "kind": "request",
        "mime": "application/json",
        "filename": f"{run.run_id}.request.json",
        "size_bytes": len(content),
        "created_at_utc": written["created_at_utc"],
    }
    assert {blob.sha256: blob.content for blob in run.built.blobs}[sha256(content)] == content


def test_no_attachment_where_nothing_was_cut() -> None:
    assert document(run_request(request={"token": "x", "safety": 1}))["attachments"] == []


def by_the_words(request: dict[str, Any]) -> tuple[Any, Any]:
    """DESIGN section 5 step by step, on plain values."""
    words = ["password", "passwd", "token", "secret", "api_key", "api-key", "apikey", "credential"]

    def first(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: first(v) for k, v in value.items() if k not in ("feasibility", "safety")}
        return [first(item) for item in value] if isinstance(value, list) else value

    def second(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                k: "[redacted]" if any(w in k.lower() for w in words) else second(v)
                for k, v in value.items()
            }
        return [second(item) for item in value] if isinstance(value, list) else value

    def third(value: Any, *, top: bool = False) -> Any:
        if isinstance(value, dict):
            if len(value) > 200 and not top:
                return {"type": "dict", "len": len(value)}
            return {k: third(v) for k, v in value.items()}
        if isinstance(value, list):
            if len(value) > 200:
                return {"type": "list", "len": len(value)}
            return [third(item) for item in value]
        return value

    complete = second(first(request))
    cut = third(complete, top=True)
    cut = {key: cut[key] for key in sorted(cut)[:80]}
    return cut, (complete if canonical_json(cut) != canonical_json(complete) else None)


KEYS = st.sampled_from(
    [
        "a",
        "b",
        "safety",
        "feasibility",
        "token",
        "API-KEY",
        "passwd",
        "kapi",
        '"',
        "é",
        "to\u212aen",
    ]
)
WIDE = st.sampled_from([199, 200, 201, 260]).flatmap(
    lambda width: st.sampled_from([[0] * width, wide_dict(width)])
)
REQUESTS = st.dictionaries(
    KEYS,
    st.recursive(
        json_values(2) | WIDE,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=5,
)


@settings(max_examples=150)
@given(REQUESTS, st.sampled_from([0, 78, 80, 81]))
def test_the_summary_is_what_the_words_say(request: dict[str, Any], more: int) -> None:
    request = request | {f"x{number:02}": number for number in range(more)}
    before = canonical_json(request)
    summary = summarise_request(request)
    assert (summary.shown, summary.complete) == by_the_words(request)
    assert canonical_json(request) == before

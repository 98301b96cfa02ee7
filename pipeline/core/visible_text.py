"""Text from outside, made safe to show: it cannot act on a terminal, hide or reorder.

A client that may publish a record writes texts that people read later: reasons, names, titles. Each
character that moves a cursor, breaks a line, changes the direction of a line or is not seen at
all is shown as its escape. A backslash stays as it is: what is shown is for reading, and what is
to be parsed is JSON.
"""

import re

# Controls, format characters, separators of lines and paragraphs, lone surrogates (Unicode's
# categories Cc, Cf, Zl, Zp and Cs), and whatever else has the property Default_Ignorable.
_NOT_SEEN = (
    "\x00-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2"
    "\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff"
)
_ANY = re.compile(f"[{_NOT_SEEN}]")
_ANY_BUT_LAYOUT = re.compile(f"(?![\n\t])[{_NOT_SEEN}]")
_LARGEST_OF_FOUR_DIGITS = 0xFFFF


def visible(text: str) -> str:
    """Return `text` as one line; newlines and tabs are escaped like all else that is not seen."""
    return _ANY.sub(_escape, text)


def visible_lines(text: str) -> str:
    """Return `text` with its newlines and tabs, for a place where no line can be taken for ours."""
    return _ANY_BUT_LAYOUT.sub(_escape, text)


def visible_json(text: str) -> str:
    """Return JSON `text` as other JSON of the same value, in which every character is seen.

    JSON escapes the first 32 controls itself; a newline or a tab in the text is its layout.
    """
    return _ANY_BUT_LAYOUT.sub(_json_escape, text)


def named_lines(text: str) -> str:
    """Return `text` with its newlines and tabs, and by its code point what is not seen: ‹U+202E›.

    For a page, where a text may hold the escapes of a program and must not be taken for them.
    """
    return _ANY_BUT_LAYOUT.sub(lambda found: f"‹U+{ord(found[0]):04X}›", text)


def without_unseen(text: str, instead: str) -> str:
    """Return `text` with another in place of each character that is not seen."""
    return _ANY.sub(instead, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\u{code:04x}" if code <= _LARGEST_OF_FOUR_DIGITS else f"\\U{code:08x}"


def _json_escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code <= _LARGEST_OF_FOUR_DIGITS:
        return f"\\u{code:04x}"
    # JSON knows escapes of four digits alone: what is above is written as its two surrogates.
    above = code - 0x10000
    return f"\\u{0xD800 + (above >> 10):04x}\\u{0xDC00 + (above & 0x3FF):04x}"

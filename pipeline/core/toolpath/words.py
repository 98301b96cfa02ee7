"""The words of one line of a G-code program (NISTIR 6556, 3.3; LinuxCNC's additions).

Only what each controller reads alike is a word. A character of another alphabet is none, also where
its capital is a letter of ours.
"""

import re
from functools import lru_cache
from typing import Final, TypeAlias

LINE_LIMIT_CHARACTERS: Final = 4096

# At most nine digits before the point: a million kilometres are no workpiece. Possessive, as a text
# of many digits must not be tried in every way to split them.
_NUMBER: Final = r"([+-]?+(?=\.?[0-9])0*+[0-9]{0,9}+(?:\.[0-9]*+)?+)"
_WORD: Final = re.compile(f"([A-Z]){_NUMBER}")
PLAIN_LINE: Final = re.compile(
    rf"(?:N[0-9]++)?+(?:(G0*+[01])(?![0-9.]))?+(?:X{_NUMBER})?+(?:Y{_NUMBER})?+(?:Z{_NUMBER})?+"
    rf"(?:F{_NUMBER})?+"
)
"""The form of nearly every line: a straight move, taken apart at once."""

_G_WORD: Final = re.compile(r"G([0-9.]*)")
_CALL: Final = re.compile(r"O|M0*9[789]")
_COMMENT_MARK: Final = re.compile(r"[();]")
_EXPRESSION: Final = frozenset("#[]=")
_SELDOM: Final = frozenset("OEUVW")

_GROUP_CODES: Final = {
    "motion": "G0 G1 G2 G3 G5 G5.1 G5.2 G5.3 G6.2 G31 G33 G33.1 G38.2 G38.3 G38.4 G38.5 G73 G74 "
    "G76 G80 G81 G82 G83 G84 G85 G86 G87 G88 G89",
    "plane": "G17 G18 G19",
    "units": "G20 G21",
    "radius": "G40 G41 G41.1 G42 G42.1",
    "length": "G43 G43.1 G43.2 G49",
    "offset": "G54 G54.1 G55 G56 G57 G58 G59 G59.1 G59.2 G59.3 G154",
    "path": "G61 G61.1 G64",
    "distance": "G90 G91",
    "centre": "G90.1 G91.1",
    "feed": "G93 G94 G95",
    "spindle": "G96 G97",
    "return": "G98 G99",
    "exact stop": "G9",
    "smoothness": "G187",
    "polar": "G15",
    "rotation": "G69",
    "once": "G4 G10 G28 G28.1 G30 G30.1 G53 G92 G92.1 G92.2 G92.3",
}
GROUPS: Final = {code: group for group, codes in _GROUP_CODES.items() for code in codes.split()}
"""The modal group of each G word that is known: of one group a line may have one."""

ALL_GROUPS: Final = frozenset(_GROUP_CODES)
ARCS: Final = {"G2", "G3"}
FEED_OUT_CYCLES: Final = {"G84", "G85", "G89"}
PECKING_CYCLES: Final = {"G73", "G83"}
CYCLES: Final = {"G81", "G82", "G86", "G88"} | FEED_OUT_CYCLES | PECKING_CYCLES
FOLLOWED: Final = {"G0", "G1", "G80"} | ARCS | CYCLES

COORDINATES: Final = "coordinates"
"""The group of what turns, mirrors or scales all that follows: none of it is known here."""

NUMBERED_OFFSETS: Final = frozenset({"G54.1", "G154"})
"""Words that choose an offset by its number, P."""

ELSEWHERE: Final = {
    "G10": "G10 sets offsets, which are not known here: what it moves is not drawn.",
    "G28": "G28 goes to a place of the machine, which is not known here: not drawn.",
    "G30": "G30 goes to a place of the machine, which is not known here: not drawn.",
    "G53": "G53 moves in coordinates of the machine, which are not known here: not drawn.",
    "G92": "G92 shifts the coordinates: what follows is drawn without the shift.",
}
M_WORDS: Final = {f"M{code}" for code in (*range(2), *range(3, 10), *range(48, 54))}
M_ENDS: Final = {"M2", "M30"}
M_CALLS: Final = {"M97", "M98", "M99"}

ROTARY: Final = frozenset("ABC")
"""Letters of words that turn something."""

MAY_MOVE: Final = frozenset("ABCGIJKOPRUVWXYZ")
"""A line with none of these letters moves nothing, whatever else it says."""


class NotDrawn(Exception):  # noqa: N818 - a remark on its way, not an error
    """A line cannot be drawn; the text says why."""


Words: TypeAlias = tuple[list[str], dict[str, float]]
"""Of a line: G and M words in their order, each in its one form (`G01` is `G1`), and the numbers
of all other words by their letters."""


def code_of_line(text: str) -> tuple[str, bool, bool]:
    """Return what is outside `( )`, which nest, and before `;`, without spaces, in capitals.

    Returns:
        The code; whether a comment has another within it; and whether every comment has its end:
        one without it takes the rest of the line.
    """
    has_nested, depth = False, 0
    if "(" in text or ";" in text:
        start, kept = 0, ""
        for mark in _COMMENT_MARK.finditer(text):
            if depth == 0 and mark[0] != ")":
                kept += text[start : mark.start()]
                start = len(text)
            if mark[0] == ";" and depth == 0:
                break
            if mark[0] == "(":
                depth += 1
                has_nested = has_nested or depth > 1
            elif mark[0] == ")" and depth:
                depth -= 1
                start = mark.end() if depth == 0 else start
        text = kept + text[start:]
    code = text.replace(" ", "").replace("\t", "")
    return code.upper() if code.isascii() else code, has_nested, depth == 0


def words_of(code: str) -> Words:
    """Return the words of a line's code.

    Raises:
        NotDrawn: Something in it is no word that can be followed.
    """
    parts = _WORD.split(code)
    if any(parts[::3]):
        raise NotDrawn(_why_no_words(code))
    letters, numbers = parts[1::3], parts[2::3]
    codes = [
        in_one_form(letter, number)
        for letter, number in zip(letters, numbers, strict=True)
        if letter in "GM"
    ]
    values = dict(zip(letters, map(float, numbers), strict=True))
    values.pop("G", None)
    values.pop("M", None)
    if len(values) + len(codes) < len(letters):
        raise NotDrawn("A word stands twice in a line: the line is not drawn.")
    if not _SELDOM.isdisjoint(values):
        if "O" in values:
            raise NotDrawn("Sub-programs and loops (O words) are not followed.")
        if "E" in values:
            raise NotDrawn("E is an exponent or another axis: its line is not drawn.")
        raise NotDrawn("U, V and W move along the axes: their lines are not drawn.")
    return codes, values


def _why_no_words(code: str) -> str:
    if not _EXPRESSION.isdisjoint(code):
        return "Variables and expressions (#, [ ]) are not evaluated: their lines are not drawn."
    if code.startswith("O"):
        return "Sub-programs and loops (O words) are not followed."
    return "Lines with something that is no word are not drawn."


def groups_of(codes: list[str]) -> dict[str, str]:
    """Return the G words of a line by their modal groups; those not known have their own.

    Raises:
        NotDrawn: Two of one group contradict each other.
    """
    found: dict[str, str] = {}
    for code in codes:
        if code[0] == "G" and found.setdefault(GROUPS.get(code, code), code) != code:
            raise NotDrawn("Two G words in a line contradict each other: the line is not drawn.")
    return found


def groups_in(code: str) -> frozenset[str]:
    """Return the modal groups that a line which is not obeyed may have set.

    A G word that is not known may change how all that follows is read, and nothing says when that
    ends.
    """
    words = [in_one_form("G", number) if number else "" for number in _G_WORD.findall(code)]
    if any(word and word not in GROUPS for word in words):
        return ALL_GROUPS | {COORDINATES}
    if "" in words or _CALL.search(code):
        return ALL_GROUPS
    return frozenset(GROUPS[word] for word in words)


@lru_cache(maxsize=1024)
def in_one_form(letter: str, number: str) -> str:
    """Return a G or M word without the zeros that say nothing: `G01.0` is `G1`."""
    whole, _, part = number.partition(".")
    part = part.rstrip("0")
    return f"{letter}{whole.lstrip('0') or '0'}{f'.{part}' if part else ''}"

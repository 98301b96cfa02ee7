"""The toolpath that a G-code program describes, as it is programmed: from text to moves.

The words are those of RS274/NGC (Kramer, Proctor and Messina, NISTIR 6556, 2000, section 3) with
LinuxCNC's additions. No stock, no machine, no offset and no collision is known here. What is not
understood is never guessed: it is counted and named by line, in `Toolpath.remarks`.
"""

import re
from typing import Final

from pipeline.core.toolpath.interpreter import Interpreter
from pipeline.core.toolpath.moves import Drawing, Toolpath
from pipeline.core.toolpath.words import (
    LINE_LIMIT_CHARACTERS,
    MAY_MOVE,
    code_of_line,
)

TEXT_LIMIT_BYTES: Final = 16 * 1024 * 1024
LINE_LIMIT: Final = 1_000_000

_LONE_CR: Final = re.compile(r"\r(?!\n)")
_LINE_END: Final = re.compile(r"\r\n?|\n")


def read_toolpath(program: str | bytes) -> Toolpath:
    """Return the moves that a program describes; a pure function, never an error.

    Args:
        program: Its text, or its bytes, which are read as UTF-8.
    """
    drawing = Drawing()
    reading = _Program(drawing)
    text, is_cut = _text_of(program)
    if text.startswith("\ufeff"):
        drawing.remark("The text begins with a byte order mark, which some controllers refuse.")
        text = text[1:]
    if lone := _LONE_CR.search(text):
        drawing.line = len(_LINE_END.findall(text, 0, lone.start())) + 1
        drawing.remark("A CR alone ends a line here; some controllers read on.")
    lines = _LINE_END.split(text, LINE_LIMIT)
    if is_cut:
        # Of the last line only a part may be here, and `X1` is not `X10`.
        del lines[-1]
    for number, line in enumerate(lines[:LINE_LIMIT], start=1):
        reading.read(number, line)
        if drawing.is_stopped:
            break
    if len(lines) > LINE_LIMIT:
        drawing.stop(f"Only the first {LINE_LIMIT:,} lines are read.")
    if is_cut:
        drawing.stop(f"Only the first {TEXT_LIMIT_BYTES:,} bytes are read.")
    line_count = len(lines) - (not is_cut and not lines[-1])
    return drawing.toolpath(line_count, is_over=reading.is_over)


def _text_of(program: str | bytes) -> tuple[str, bool]:
    """Return what is read of a program, and whether it is only its beginning."""
    # A character has at least one byte, so no more of them need to be looked at.
    begin = program[: TEXT_LIMIT_BYTES + 1]
    content = begin.encode(errors="replace") if isinstance(begin, str) else begin
    return content[:TEXT_LIMIT_BYTES].decode(errors="replace"), len(content) > TEXT_LIMIT_BYTES


class _Program:
    """A program that is being read."""

    def __init__(self, drawing: Drawing) -> None:
        self.is_over = False
        self._drawing = drawing
        self._interpreter = Interpreter(drawing)
        self._is_opened = self._has_begun = False

    def read(self, line: int, text: str) -> None:
        """Read the next line."""
        self._drawing.line = line
        if len(text) > LINE_LIMIT_CHARACTERS:
            self._drawing.remark(
                f"Lines of more than {LINE_LIMIT_CHARACTERS:,} characters are not read."
            )
            self._interpreter.lose_all()
            return
        code, has_nested, is_closed = code_of_line(text)
        if has_nested:
            self._drawing.remark(
                "A comment within a comment: some controllers end both at the first )."
            )
        if not is_closed:
            self._drawing.remark("A comment has no end: the rest of its line is taken as comment.")
            if has_nested:
                self._interpreter.lose_all()
        if code == "%":
            # The first opens a program; any other ends it (NISTIR 6556, 3.2).
            self.is_over = self.is_over or self._is_opened or self._has_begun
            self._is_opened = True
        elif self.is_over:
            if not MAY_MOVE.isdisjoint(code):
                self._drawing.remark("What stands behind the end of the program is not drawn.")
        elif code:
            self._read_code(code)

    def _read_code(self, code: str) -> None:
        is_first, self._has_begun = not self._has_begun, True
        if is_first and code[0] == "O" and code[1:].isdecimal():
            return  # the number of the program
        if code[0] == "/":
            self._drawing.remark("Lines that may be skipped (/) are drawn.")
            code = code.lstrip("/")
        self._interpreter.obey(code)
        self.is_over = self._interpreter.is_over

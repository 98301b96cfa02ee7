"""G-code above the inline limit, made rather than stored: 200,000 bytes say no more than a rule."""

LARGE_GCODE_MARK = "@LARGE_GCODE@"
"""Stands in a golden request for `large_gcode()`."""


def large_gcode() -> str:
    """Return the same 10,000 lines each time."""
    lines = [f"G1 X{x % 97}.5 Y{x % 89} F{x % 13}00" for x in range(12_000)]
    return "(Tasche für die Säge)\n" + "\n".join(lines) + "\n"

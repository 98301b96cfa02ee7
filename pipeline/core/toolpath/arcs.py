"""Geometry of arcs in a plane: their centre, their angle, and chords in their place.

Angles in radians, counterclockwise positive; lengths in one unit.
"""

import math
from typing import TypeAlias

from pipeline.core.toolpath.moves import Point

CHORD_TOLERANCE = 0.01
"""Farthest that a chord lies from its arc; in mm where lengths are."""

CHORDS_A_TURN = 256
"""Most chords of one turn."""

SAME_ANGLE = 1e-9
"""Ends of an arc that are closer than this are one place: the arc is a full circle."""

Spot: TypeAlias = tuple[float, float]


def centre_of_radius(
    a: Spot, b: Spot, radius: float, *, is_clockwise: bool, tolerance: float
) -> Spot | None:
    """Return the centre of an arc from `a` to `b`; a negative radius takes the long way round.

    None where no such arc exists, and where `a` is `b`, so that there are many.
    """
    chord = math.dist(a, b)
    if not chord or chord / 2 > abs(radius) + tolerance:
        return None
    height = math.sqrt(max(0.0, radius * radius - chord * chord / 4))
    side = -height if is_clockwise == (radius > 0) else height
    return (
        (a[0] + b[0]) / 2 - side * (b[1] - a[1]) / chord,
        (a[1] + b[1]) / 2 + side * (b[0] - a[0]) / chord,
    )


def sweep_of(a: Spot, b: Spot, centre: Spot, *, is_clockwise: bool, more_turns: int) -> float:
    """Return the angle from `a` to `b` around `centre`; a full circle where both are one place."""
    angle = angle_at(b, centre) - angle_at(a, centre)
    if is_clockwise:
        angle = -angle
    angle %= math.tau
    if min(angle, math.tau - angle) < SAME_ANGLE:
        angle = math.tau
    angle += math.tau * more_turns
    return -angle if is_clockwise else angle


def angle_at(spot: Spot, centre: Spot) -> float:
    """Return the angle of `spot` around `centre`."""
    return math.atan2(spot[1] - centre[1], spot[0] - centre[0])


def chord_count(radius: float, sweep: float) -> int:
    """Return how many chords keep within `CHORD_TOLERANCE` of an arc, and `CHORDS_A_TURN`."""
    if radius <= CHORD_TOLERANCE:
        return 1
    step = max(2 * math.acos(1 - CHORD_TOLERANCE / radius), math.tau / CHORDS_A_TURN)
    return max(1, math.ceil(abs(sweep) / step))


def arc_points(
    ends: tuple[Point, Point], plane: tuple[int, int, int], centre: Spot, sweep: float, count: int
) -> tuple[Point, ...]:
    """Return the start of an arc and the ends of its chords.

    Along the axis across the plane it climbs evenly, and so it does in radius, where that of its
    end is another.

    Args:
        ends: Start and end, in space.
        plane: Both axes of the plane, then the one across it.
        centre: In the plane.
        sweep: The angle from start to end.
        count: Of chords, at least one.
    """
    start, end = ends
    first, second, across = plane
    a, b = (start[first], start[second]), (end[first], end[second])
    begin, radius = angle_at(a, centre), math.dist(a, centre)
    widening, climb = math.dist(b, centre) - radius, end[across] - start[across]
    points = [start]
    for number in range(1, count):
        part = number / count
        angle, wide = begin + sweep * part, radius + widening * part
        point = [0.0, 0.0, 0.0]
        point[first] = centre[0] + wide * math.cos(angle)
        point[second] = centre[1] + wide * math.sin(angle)
        point[across] = start[across] + climb * part
        points.append((point[0], point[1], point[2]))
    return (*points, end)

"""A store of a shop: runs that may be cut and that may not, a damaged and a hostile one."""

import json
from pathlib import Path
from typing import Any

from pipeline.audit.journal import journal_path, write_report
from pipeline.disk.durable_files import DurableFiles
from tests.audit.audited import audit
from tests.builders import (
    advisory_request,
    attachment,
    red_request,
    rosette_request,
    router_request,
    run_request,
)
from tests.evidence.proven_stores import proven_store

DATA = Path(__file__).parents[3] / "shared" / "data" / "gcode"
"""Programs of a real shop, beside the repository."""

AUDIT = "audit_of_the_shop"
HOSTILE = (
    '"\'><script>alert(1)</script><img src="//elsewhere.example/x" onerror=alert(2)>'
    "<svg onload=alert(3)>{{ 7*7 }}</textarea></title><style>*{color:red}</style>"
    "\u202egnp.exe\u2066\u200b\u00ad [x](javascript:alert(4)) ![y](https://elsewhere.example/y)"
)
SHORT = '"><script>alert(1)</script><b onclick=alert(2)>\u202egnp.exe\u200b'
"""Of a name, which has a limit."""

SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20" onload="alert(5)">'
    b'<script>alert(6)</script><image href="https://elsewhere.example/z"/>'
    b'<rect width="40" height="20"/></svg>'
)
MARKDOWN = f"# {HOSTILE}\n\n{HOSTILE}\n\n<javascript:alert(7)>\n\n|a|\n|:-:|\n|{HOSTILE}|\n"
ISLAND = """\
G21 G90 G17
T1 M6
S12000 M3
G0 X0 Y0 Z5
G0 X10 Y10
G1 Z-2 F300
G1 X70 F1200
G3 X80 Y20 I0 J10
G1 Y50
G3 X70 Y60 I-10 J0
G1 X10
G3 X0 Y50 I0 J-10
G1 Y20
G3 X10 Y10 I10 J0
G0 Z5
G0 X40 Y35
G1 Z-2 F300
G2 X40 Y35 I-8 J0 F1200
G0 Z5
M30
"""
UNDRAWN = "O100\n#1=5\nG28\nM98 P1000\nG10 L2 P1 X[#1]\nM30\n"
"""A program of which nothing can be drawn: each line of it is told instead."""


def make_shop(root: Path) -> dict[str, str]:
    """Make the store at `root`; return each run_id by what the run is for."""
    requests = {
        "green": run_request(run_id="green", attachments=[attachment(b"0\nSECTION\n")]),
        "yellow": router_request(run_id="yellow", outputs={"gcode_text": ISLAND}),
        "other": router_request(
            run_id="other",
            outputs={"gcode_text": ISLAND.replace("Y60", "Y61").replace("Y50", "Y51")},
        ),
        "again": router_request(
            run_id="again", outputs={"gcode_text": ISLAND.replace("G21", "(again)\nG21")}
        ),
        "twice": router_request(
            run_id="twice", outputs={"gcode_text": ISLAND.replace("G1 Y50", "G1 Y50\nY20\nY50")}
        ),
        "thrice": router_request(
            run_id="thrice",
            outputs={"gcode_text": ISLAND.replace("G1 Y50", "G1 Y50" + 2 * "\nY20\nY50")},
        ),
        "blocked": red_request(run_id="blocked"),
        "rosette": rosette_request(run_id="rosette"),
        "damaged": run_request(run_id="damaged", material_id="pearwood"),
        "undrawn": router_request(run_id="undrawn", outputs={"gcode_text": UNDRAWN}),
        "hostile": _hostile_run(),
        "large": run_request(run_id="large", notes=HOSTILE + "n" * (20_000 - len(HOSTILE))),
    }
    for program in programs():
        requests[program.name] = run_request(
            run_id=f"real_{program.name.replace('.', '_').lower()}",
            outputs={"gcode_text": program.read_text(encoding="utf-8")},
        )
    advisories = [
        advisory_request(run_id="green", advisory_id="explained"),
        advisory_request(
            run_id="hostile",
            advisory_id="hostile",
            title=SHORT,
            engine_id=SHORT,
            mime="text/markdown",
            content_text=MARKDOWN,
        ),
    ]
    proven_store(
        root,
        requests=[(0, request) for request in requests.values()],
        advisories=[(0, advisory) for advisory in advisories],
    )
    (file,) = (root / "runs").glob("*/damaged.json")
    file.chmod(0o600)
    file.write_bytes(file.read_bytes().replace(b"pearwood", b"applewood"))
    _keep_an_audit(root)
    return {name: request["run_id"] for name, request in requests.items()}


def _keep_an_audit(root: Path) -> None:
    """Audit the store, and keep the report as the worker does: it finds the damaged run."""
    audited = audit(root, audit_id=AUDIT)
    assert audited.findings
    lines = [
        {"begun": {}},
        *(each.document(AUDIT) for each in audited.findings),
        {"done": "rest", "counts": {}, "files": 0},
    ]
    path = journal_path(root, AUDIT)
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_report(DurableFiles(root), audited.report)


def programs() -> list[Path]:
    """Return the real programs; none where they are not here."""
    return sorted(DATA.glob("*.nc")) + sorted(DATA.glob("*.gcode"))


def _hostile_run() -> dict[str, Any]:
    """Return a run whose every text that may be anything is hostile."""
    free = (
        *("material_id", "machine_id", "tool_id", "workflow_session_id", "engine_version"),
        *("toolchain_version", "post_processor_version", "config_fingerprint", "geometry_ref"),
    )
    odd = {HOSTILE: HOSTILE, "big": 2**63, "large": 1e308, "list": [HOSTILE, 2**53 + 1]}
    feasibility = {
        "risk_level": "YELLOW",
        "score": 50,
        "warnings": [HOSTILE],
        "constraints": [HOSTILE],
        "details": odd,
        **odd,
    }
    return run_request(
        run_id="hostile",
        feasibility=feasibility,
        request=odd,
        meta=odd,
        outputs={"gcode_text": f"({HOSTILE})\n{ISLAND}", "preview_svg": SVG.decode()},
        attachments=[
            attachment(SVG, kind="geometry_svg", mime="image/svg+xml", filename="a<b>.svg"),
            attachment(
                f"<script>{HOSTILE}".encode(), kind="x", mime="text/html", filename="c.html"
            ),
        ],
        notes=HOSTILE,
        **dict.fromkeys(free, SHORT),
    )

#!/usr/bin/env python3
"""Asks RMOS Runs whether this very file may be cut, before a sender starts it.

    python3 gate.py part.nc && start-the-job part.nc

Exit status 0 means: a machine may cut exactly these bytes. Any other means: do not start. It is 0
only where all of this holds, and every doubt ends it with 4:

1. The answer came in time, over TLS or from this machine, from the address that was asked.
2. The list of the runs of these bytes is one page, and not empty.
3. Each run in it is OK, GREEN or YELLOW, and has these bytes as its program.
4. The artifact of the newest that may be cut has its SHA-256, and says the same.
5. The file has the same bytes as before.

GATE_API is the address, by default http://127.0.0.1:8080; GATE_TOKEN is the token where one is
asked for. It needs Python 3.9 and nothing else.
"""

import hashlib
import json
import os
import pathlib
import re
import sys
import threading
import urllib.parse
import urllib.request

SECONDS = 10.0
"""Longest wait for all answers together."""

MAY_CUT, REFUSED = 0, 4
LIMIT_BYTES = 64 << 20
"""No list and no artifact is nearly as large."""

RUNS = "/api/rmos/runs"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
SAFE_RISKS = ("GREEN", "YELLOW")
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class DoubtError(Exception):
    """Why the file must not be cut."""


def main(arguments):
    """Ask about one file; return the exit status."""
    if len(arguments) != 1:
        print("DO NOT CUT: usage: gate.py FILE", file=sys.stderr)
        return REFUSED
    answer = []

    def ask():
        # Whatever goes wrong is a doubt, also what nobody has thought of.
        try:
            answer.append((MAY_CUT, verdict(arguments[0])))
        except Exception as error:  # noqa: BLE001
            words = (
                str(error) if isinstance(error, DoubtError) else f"{type(error).__name__}: {error}"
            )
            answer.append((REFUSED, f"DO NOT CUT: {words}"))

    # A server may send a byte now and then for ever: no time-out of a socket ends that.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SECONDS)
    status, words = (answer or [(REFUSED, f"DO NOT CUT: no answer in {SECONDS:g} s")])[0]
    # One line, whatever a run has as its reason.
    line = "".join(each if each.isprintable() else "?" for each in words)
    print(line.encode("ascii", "backslashreplace").decode(), file=sys.stderr if status else None)
    return status


def verdict(name):
    """Return why the file may be cut; raise DoubtError where it may not."""
    sha256 = hash_of(name)
    run = released_run(sha256)
    check_artifact(run, sha256)
    if hash_of(name) != sha256:
        raise DoubtError("the file changed while it was asked about")
    return f"MAY CUT: these bytes are the program of the run {run['run_id']} ({run['risk_level']})"


def hash_of(name):
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with pathlib.Path(name).open("rb") as file:
        while True:
            piece = file.read(1 << 20)
            if not piece:
                return digest.hexdigest()
            digest.update(piece)


def released_run(sha256):
    """Return the newest run that may be cut by this program, if no run refuses it."""
    page = parsed(fetched(f"{RUNS}?gcode_sha256={sha256}&limit=200"))
    if not {"items", "next_cursor"} <= set(page) or not isinstance(page["items"], list):
        raise DoubtError("the answer is no list of runs")
    if page["next_cursor"] is not None:
        raise DoubtError("there are more runs of these bytes than one page")
    if not page["items"]:
        raise DoubtError("no run knows these bytes")
    for run in page["items"]:
        check_run(run, sha256)
    for run in page["items"]:
        if run["may_cut"] is True:
            return run
    raise DoubtError("these bytes are only the program of runs that no machine cuts by")


def check_run(run, sha256):
    """Refuse where one run of the list refuses the program."""
    if not isinstance(run, dict) or not RUN_ID.fullmatch(str(run.get("run_id"))):
        raise DoubtError("the answer has something that is no run")
    run_id = run["run_id"]
    if run.get("status") != "OK" or run.get("risk_level") not in SAFE_RISKS:
        why = run.get("block_reason") or run.get("risk_level")
        raise DoubtError(f"the run {run_id} is {run.get('status')}: {why}")
    if run.get("gcode_sha256") != sha256:
        raise DoubtError(f"the run {run_id} has another program")
    if not isinstance(run.get("may_cut"), bool):
        raise DoubtError(f"the answer does not say whether a machine may cut by the run {run_id}")


def check_artifact(run, sha256):
    """Refuse where the record of a run is not what was stored, or does not say the same."""
    run_id = run["run_id"]
    content = fetched(f"{RUNS}/{run_id}/download")
    if hashlib.sha256(content).hexdigest() != run.get("artifact_sha256"):
        raise DoubtError(f"the artifact of the run {run_id} has another SHA-256 than the list says")
    artifact = parsed(content)
    provenance = artifact["provenance"]
    says_the_same = (
        artifact["run_id"] == run_id
        and artifact["status"] == "OK"
        and artifact["decision"]["risk_level"] == run["risk_level"]
        and not provenance.get("legacy")
        and not provenance.get("withheld")
    )
    programs = [artifact["hashes"].get("gcode_sha256")]
    programs += [each["sha256"] for each in artifact["attachments"]]
    programs.append(provenance.get("claimed_hashes", {}).get("gcode_sha256"))
    if not says_the_same or sha256 not in programs:
        raise DoubtError(f"the artifact of the run {run_id} does not say that it may be cut")


def fetched(path):
    """Return the body of the answer with status 200 from the API itself."""
    api = os.environ.get("GATE_API", "http://127.0.0.1:8080").rstrip("/")
    parts = urllib.parse.urlsplit(api)
    if parts.scheme != "https" and (parts.scheme != "http" or parts.hostname not in LOOPBACK):
        raise DoubtError("GATE_API must begin with https, or be an address of this machine")
    headers = {"Accept": "application/json"}
    if os.environ.get("GATE_TOKEN"):
        headers["Authorization"] = "Bearer " + os.environ["GATE_TOKEN"]
    request = urllib.request.Request(api + path, headers=headers)
    # No proxy of the environment, and nobody else's answer.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect())
    with opener.open(request, timeout=SECONDS) as answer:
        if answer.status != 200 or answer.headers.get_content_type() != "application/json":
            raise DoubtError(
                f"the API answered {answer.status} with {answer.headers['content-type']}"
            )
        content = answer.read(LIMIT_BYTES + 1)
        if len(content) > LIMIT_BYTES:
            raise DoubtError("the answer is too large")
    return content


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for the error that it is here."""

    def redirect_request(self, *_redirect):
        return None


def parsed(content):
    """Return one JSON object, whose names are each there once."""
    found = json.loads(content.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    if not isinstance(found, dict):
        raise DoubtError("the answer is no JSON object")
    return found


def unique(pairs):
    """Return the object of these members."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise DoubtError("the answer has one name twice")
    return found


def refuse(constant):
    """Refuse what is no JSON."""
    raise DoubtError(f"the answer has {constant}, which is no JSON")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

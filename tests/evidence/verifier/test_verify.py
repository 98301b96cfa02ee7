"""The verifier over whole bundles: proven, not proven, refused, unreadable, and what it says."""

import contextlib
import functools
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evidence.verifier import verify
from pipeline.ledger.tlog.checkpoints import (
    Checkpoint,
    parse_trusted,
    sign_checkpoint,
    write_trusted,
)
from tests.builders import run_request, sha256
from tests.evidence.proven_stores import REQUESTS, SHARED, go_on, proven_store
from tests.evidence.verifier.bundles import (
    VKEY,
    Verdict,
    checkpoints_now,
    listed,
    make_bundle,
    members,
    verify_alone,
    write_members,
)
from tests.golden.large_gcode import large_gcode
from tests.json_values import json_values
from tests.ledger.ledgers import SIGNER, STORE_ID
from tests.ledger.tlog.signers import signer

LATER = [(0, run_request(run_id=f"later_{number}")) for number in range(9)]
OTHER_KEY = str(signer(SIGNER.name, seed=2).key)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    large = run_request(run_id="large", outputs={"gcode_text": large_gcode()})
    return proven_store(
        tmp_path_factory.mktemp("proven") / "store", requests=[*REQUESTS, (3, large)]
    )


@pytest.fixture(scope="module", autouse=True)
def each_signature_once() -> Iterator[None]:
    """Verify a signature of the same bytes once: thousands of changes are elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "verify_ed25519", functools.cache(verify.verify_ed25519))
        yield


@pytest.fixture(scope="module")
def bundle(store: Path) -> Path:
    return make_bundle(store, store.parent / "saw_1.zip")


@pytest.fixture(scope="module")
def held(store: Path) -> Path:
    path = store.parent / "held"
    path.write_bytes(checkpoints_now(store))
    return path


def run(*arguments: str | Path) -> Verdict:
    """Run the verifier in this process."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        status = verify.main([str(each) for each in arguments])
    return Verdict(status, told.getvalue())


def with_changes(
    bundle: Path, path: Path, **changes: Callable[[bytes], bytes] | bytes | None
) -> Path:
    """Write the bundle again; names stand for its files, `__` for a slash."""
    files = members(bundle)
    for key, change in changes.items():
        (name,) = [name for name in files if name == key.replace("__", "/")] or [key]
        if change is None:
            del files[name]
        else:
            files[name] = change if isinstance(change, bytes) else change(files[name])
    return write_members(path, listed(files))


def test_with_the_key_it_is_proven(bundle: Path) -> None:
    found = run(bundle, "--key", VKEY)
    assert found.status == 0, found.text
    assert found.text.splitlines()[-1] == (
        "RESULT       proven: the log recorded these bytes, and they are unchanged"
    )
    assert found.text.count(f"signed by {SIGNER.name}+") == 3
    assert "status       OK   risk GREEN" in found.text


def test_with_the_checkpoints_that_are_held_it_is_proven(bundle: Path, held: Path) -> None:
    found = run(bundle, "--trusted", held)
    assert found.status == 0, found.text
    assert found.text.count("it is the checkpoint of ") == 3


def test_with_one_note_of_each_log_it_is_proven(bundle: Path, held: Path, tmp_path: Path) -> None:
    runs, advisories = (
        next(
            each.note
            for each in parse_trusted(held.read_bytes())
            if each.checkpoint.origin.endswith(end)
        )
        for end in ("runs.requests/0", "advisories.requests/0")
    )
    (tmp_path / "one").write_bytes(runs)
    one = run(bundle, "--trusted", tmp_path / "one")
    assert one.status == 3
    assert "not proven   advisory-1: you hold no checkpoint of rmos/" in one.text
    assert "not proven   run:" not in one.text
    (tmp_path / "two").write_bytes(write_trusted([runs, advisories]))
    assert run(bundle, "--trusted", tmp_path / "two").status == 0
    assert run(bundle, "--held", tmp_path / "two").status == 0, "the older name"


def test_with_neither_it_is_consistent_and_not_proven(bundle: Path) -> None:
    found = run(bundle)
    assert found.status == 3
    assert found.text.endswith("RESULT       consistent with itself, origin not proven\n")


def test_it_needs_nothing_but_a_bare_python(bundle: Path, held: Path, tmp_path: Path) -> None:
    check_alone(sys.executable, bundle, held, tmp_path)


def test_it_needs_nothing_newer_than_python_3_9(bundle: Path, held: Path, tmp_path: Path) -> None:
    name = shutil.which("python3.9")
    asked = [name or "false", "-c", "import sys; print(sys.executable)"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("there is no python3.9 here")
    check_alone(done.stdout.strip(), bundle, held, tmp_path)


def check_alone(python: str, bundle: Path, held: Path, folder: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(folder / "unpacked")
    brought = folder / "unpacked" / "verify.py"
    for arguments, status in (
        ((), 3),
        (("--key", VKEY), 0),
        (("--key", OTHER_KEY), 1),
        (("--trusted", held), 0),
        ((bundle, "--key", VKEY, "--trusted", held), 0),
        ((folder / "unpacked", "--key", VKEY), 0),
        ((folder / "nowhere",), 2),
    ):
        found = verify_alone(*arguments, folder=folder, verifier=brought, python=python)
        assert found.status == status, found.text
    assert not list((folder / "unpacked").rglob("__pycache__"))


def test_the_verifier_in_the_bundle_is_the_one_of_the_program(bundle: Path) -> None:
    assert members(bundle)["verify.py"] == Path(verify.__file__).read_bytes()


def test_options_that_are_none_end_with_2(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        verify.main([str(bundle), "--trust-me"])
    assert ended.value.code == 2
    capsys.readouterr()
    for vkey in ("", "rmos", OTHER_KEY[:-4], OTHER_KEY.replace("+", "-"), f"{VKEY} "):
        found = run(bundle, "--key", vkey)
        assert (found.status, found.text[:11]) == (2, "UNREADABLE "), vkey


# What is refused.


def test_another_key_is_refused_and_nothing_of_the_run_is_said(bundle: Path) -> None:
    found = run(bundle, "--key", OTHER_KEY)
    assert found.text == "REFUSED      no given key signed the checkpoint of run\n"


def test_the_key_of_another_store_is_refused(tmp_path: Path, bundle: Path) -> None:
    """A key vouches for the logs of its own store, whatever it signed."""
    thief = signer("rmos/" + "1" * 32)
    files = members(bundle)
    for name in [name for name in files if name.endswith(".tlog-proof")]:
        head, _, note = files[name].partition(b"\n\n")
        found = verify.parse_checkpoint(note)
        forged = sign_checkpoint(Checkpoint(found.origin, found.size, found.root), [thief])
        files[name] = head + b"\n\n" + forged
    path = write_members(tmp_path / "b.zip", listed(files))
    told = run(path, "--key", thief.key)
    assert (told.status, "no checkpoint is signed by rmos/" in told.text) == (1, True)
    files["vkeys.txt"] = f"{thief.key}\n".encode()
    path = write_members(tmp_path / "b.zip", listed(files))
    told = run(path, "--key", thief.key)
    assert told.status == 1
    assert "signed a checkpoint of another store's log" in told.text


def test_another_verifier_in_the_bundle_is_named(tmp_path: Path, bundle: Path) -> None:
    files = members(bundle)
    assert "not this program" not in run(bundle, "--key", VKEY).text
    files["verify.py"] = b"print('RESULT       proven')\n"
    told = run(write_members(tmp_path / "b.zip", listed(files)), "--key", VKEY)
    assert told.status == 0
    assert "verify.py in the bundle is not this program" in told.text


EXPLAINING = {"README.txt", "report.html", "verify.py"}
"""Nothing but SHA256SUMS is about them, and anybody can write that."""


def test_any_changed_byte_of_any_file_is_refused_though_it_is_listed_anew(bundle: Path) -> None:
    """Exhaustive over the bytes of leaves, proofs, keys, artifact, links and attachments."""
    files = members(bundle)
    tried = 0
    for name in sorted(files.keys() - EXPLAINING - {"SHA256SUMS"}):
        for place in range(len(files[name])):
            changed = bytearray(files[name])
            changed[place] ^= 1
            found = run_in_memory(listed({**files, name: bytes(changed)}))
            assert found in {1, 2}, (name, place)
            tried += 1
    assert tried > 5000
    assert run_in_memory(files) == 0


def test_any_changed_byte_of_the_list_of_hashes_is_refused(bundle: Path) -> None:
    files = members(bundle)
    for place in range(len(files["SHA256SUMS"])):
        changed = bytearray(files["SHA256SUMS"])
        changed[place] ^= 1
        found = run_in_memory({**files, "SHA256SUMS": bytes(changed)})
        assert found in {1, 2}, place


NAMES = st.text("abcdefgh./-_ 0", min_size=1, max_size=9)


def any_name(data: st.DataObject, files: Mapping[str, bytes]) -> str:
    """Draw a name: of a file, near one, or of nothing."""
    old = data.draw(st.sampled_from(sorted(files)))
    folder = old.rpartition("/")[0]
    near = [old, old.upper(), f"{old}.bak", f"{folder}/x", f"./{old}", old.replace("/", "\\\\")]
    return data.draw(st.sampled_from(near) | NAMES)


def change_once(files: dict[str, bytes], data: st.DataObject) -> dict[str, bytes]:
    """Change one thing: a byte, a length, a name; leave a file out, or add one."""
    name = data.draw(st.sampled_from(sorted(files)))
    content = files.pop(name)
    place = data.draw(st.integers(0, len(content) - 1))
    match data.draw(st.sampled_from(["byte", "cut", "longer", "gone", "renamed", "added"])):
        case "byte":
            changed = bytearray(content)
            changed[place] ^= data.draw(st.integers(1, 255))
            files[name] = bytes(changed)
        case "cut":
            files[name] = content[:place]
        case "longer":
            files[name] = content + data.draw(st.binary(min_size=1, max_size=9))
        case "renamed":
            files[any_name(data, files)] = content
        case "added":
            files = {any_name(data, files): data.draw(st.binary()), **files, name: content}
    return files


@given(st.data())
def test_no_single_change_of_a_bundle_leaves_it_proven(bundle: Path, data: st.DataObject) -> None:
    files = members(bundle)
    changed = change_once(dict(files), data)
    assert run_in_memory(changed) in ({0} if changed == files else {1, 2, 4})


@given(st.data())
def test_no_two_changes_of_a_bundle_prove_another_run(bundle: Path, data: st.DataObject) -> None:
    """The second is the list of hashes: what counts is still exactly what was proven."""
    files = members(bundle)
    changed = listed(change_once(dict(files), data))
    if run_in_memory(changed) == 0:
        counted = files.keys() - EXPLAINING - {"SHA256SUMS"}
        assert {name: changed.get(name) for name in counted} == {
            name: files[name] for name in counted
        }
        assert changed.keys() == files.keys()


class InMemory(verify.Bundle):
    """A bundle without a disk, for thousands of them."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._names = {
            name: (lambda content=content: io.BytesIO(content)) for name, content in files.items()
        }
        self._folders = []
        self._hashes = {}
        self.check_format()


KEYS = [verify.parse_vkey(VKEY)]


def run_in_memory(files: Mapping[str, bytes]) -> int:
    try:
        account = verify.check_bundle(InMemory(files), KEYS, None)
    except verify.RefusedError:
        return 1
    except verify.UnreadableError:
        return 2
    if account.reasons:
        return 3
    return 4 if account.missing else 0


@given(st.data())
def test_a_leaf_or_document_of_any_other_shape_is_refused_and_never_a_crash(
    bundle: Path, data: st.DataObject
) -> None:
    files = members(bundle)
    names = [name for name in files if name.endswith((".leaf", ".json"))]
    name = data.draw(st.sampled_from(sorted(names)))
    document: dict[str, Any] = json.loads(files[name])
    inside = data.draw(
        st.sampled_from([document, *(v for v in document.values() if isinstance(v, dict))])
    )
    key = data.draw(st.sampled_from(sorted(inside) or ["x"]))
    old = inside.get(key)
    if data.draw(st.booleans()):
        inside.pop(key, None)
    else:
        inside[key] = data.draw(json_values(3))
    if inside.get(key) != old or type(inside.get(key)) is not type(old):
        changed = {**files, name: verify.canonical_json(document)}
        assert run_in_memory(listed(changed)) in {1, 2}


def rehashed(
    files: dict[str, bytes], change: Callable[[dict[str, Any]], object]
) -> dict[str, bytes]:
    """Change the artifact and make its leaf agree: all that is left is proof and checks."""
    (path,) = [name for name in files if name.endswith("/saw_1.json")]
    document = json.loads(files[path])
    change(document)
    files[path] = verify.canonical_json(document)
    leaf = json.loads(files["records/run.leaf"])
    leaf["sha256"] = verify.hashlib.sha256(files[path]).hexdigest()
    files["records/run.leaf"] = verify.canonical_json(leaf)
    return listed(files)


@given(st.data())
def test_an_artifact_of_any_shape_that_its_leaf_agrees_with_never_crashes(
    bundle: Path, data: st.DataObject
) -> None:
    def change(document: dict[str, Any]) -> None:
        key = data.draw(st.sampled_from(sorted(document)))
        document[key] = data.draw(json_values(4))

    files = rehashed(members(bundle), change)
    assert run_in_memory(files) in ({0} if files == members(bundle) else {1, 2})


def test_an_edited_verdict_with_its_leaf_edited_too_is_refused_by_the_tree(bundle: Path) -> None:
    files = rehashed(members(bundle), lambda document: document.update(status="BLOCKED"))
    with pytest.raises(verify.RefusedError, match="expected the root"):
        verify.check_bundle(InMemory(files), [], None)


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "evaluation": (lambda d: d["feasibility"].update(score=1), "a hash in the artifact is not"),
    "G-code": (lambda d: d["outputs"].update(gcode_text="G0"), "a hash in the artifact is not"),
    "no toolpaths": (lambda d: d["outputs"].pop("toolpaths"), "a hash in the artifact is not"),
    "no hash": (lambda d: d["hashes"].pop("gcode_sha256"), "a hash in the artifact is not"),
    "run": (lambda d: d.update(run_id="saw_2"), "the artifact is of another run than its leaf"),
    "day": (lambda d: d.update(created_at_utc="2025-12-19T00:00:00Z"), "has another path"),
    "version": (lambda d: d.update(schema_version="rmos.run_artifact/3"), "expected rmos.run_art"),
    "reference": (lambda d: d.update(attachments=[{"sha256": "x"}]), "expected an attachment"),
}


@pytest.mark.parametrize(("change", "sentence"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_an_artifact_is_said(
    bundle: Path, change: Callable[[dict[str, Any]], object], sentence: str
) -> None:
    with pytest.raises(verify.RefusedError, match=sentence):
        verify.check_bundle(InMemory(rehashed(members(bundle), change)), [], None)


def signed_anew(
    files: Mapping[str, bytes], name: str, store_id: str = STORE_ID, **changes: Any
) -> dict[str, bytes]:
    """Change a leaf, in a log of that leaf alone which the true key signs: only checks remain."""
    leaf = json.loads(files[f"records/{name}.leaf"]) | changes
    encoded = verify.canonical_json(leaf)
    proof = verify.parse_inclusion(files[f"records/{name}.tlog-proof"])
    origin = proof.checkpoint.origin.replace(STORE_ID, store_id)
    note = sign_checkpoint(Checkpoint(origin, 1, verify.leaf_hash(encoded)), [SIGNER])
    head = b"c2sp.org/tlog-proof@v1\nindex 0\n\n"
    return listed(
        {
            **files,
            f"records/{name}.leaf": encoded,
            f"records/{name}.tlog-proof": head + note,
        }
    )


def test_a_log_of_one_leaf_that_the_key_signed_is_proven(bundle: Path) -> None:
    assert run_in_memory(signed_anew(members(bundle), "run")) == 0
    assert run_in_memory(signed_anew(members(bundle), "advisory-1")) == 0


SOURCE = {"topic": "rmos.runs.requests", "partition": 0, "offset": 0, "timestamp_ms": 0}


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("run", {"v": 2}, "expected version 1 of the leaf run"),
        ("run", {"kind": "duplicate"}, "expected the leaf of a run that was stored"),
        ("run", {"source": {**SOURCE, "partition": 1}}, "the leaf of run is of another log than"),
        ("run", {"source": {**SOURCE, "topic": "t"}}, "the leaf of run is of another log than"),
        ("run", {"source": {**SOURCE, "partition": True}}, "the leaf of run is of another log"),
        ("run", {"path": "runs/../../etc/passwd.json"}, "expected the path of a file of a run"),
        ("run", {"store_id": "1" * 32}, "expected the logs of one store"),
        ("advisory-1", {"kind": "conflict"}, "expected the leaf of an advisory"),
        ("advisory-1", {"run_id": "saw_2"}, "expected an advisory of the same run"),
    ],
)
def test_a_leaf_that_is_not_what_it_stands_for_is_refused_though_it_is_signed(
    bundle: Path, name: str, changes: dict[str, Any], sentence: str
) -> None:
    files = signed_anew(members(bundle), name, **changes)
    with pytest.raises(verify.RefusedError, match=sentence):
        verify.check_bundle(InMemory(files), [], None)


def test_a_link_that_is_not_that_of_its_leaf_is_refused_though_it_is_signed(bundle: Path) -> None:
    files = members(bundle)
    one = "files/runs/2025-12-18/saw_1_advisory_adv_1.json"
    files[one] = files["files/runs/2025-12-18/saw_1_advisory_adv_3.json"]
    files = signed_anew(files, "advisory-1", link_sha256=sha256(files[one]))
    with pytest.raises(verify.RefusedError, match="has another advisory_id than its leaf"):
        verify.check_bundle(InMemory(files), [], None)


def test_a_file_that_nothing_explains_is_refused(bundle: Path, tmp_path: Path) -> None:
    for name in (
        "files/runs/2025-12-18/saw_2.json",
        "files/attachments/ab/cd/ef",
        "records/notes.txt",
        "notes.txt",
        "SHA256SUMS.txt",
        "records/run.txt",
    ):
        files = {**members(bundle), name: b"{}"}
        assert run(write_members(tmp_path / "b.zip", files)).status == 1
        found = run(write_members(tmp_path / "b.zip", listed(files)))
        assert (found.status, found.text) == (1, f"REFUSED      nothing explains {name}\n")


def test_a_swapped_record_is_refused(bundle: Path, store: Path) -> None:
    files = members(bundle)
    red = members(make_bundle(store, store.parent / "swapped.zip", "saw_red"))
    for end in ("leaf", "tlog-proof"):
        swapped = {**files, f"records/run.{end}": red[f"records/run.{end}"]}
        assert run_in_memory(listed(swapped)) in {1, 2}
    one, two = (files[f"records/advisory-{number}.leaf"] for number in (1, 2))
    swapped = {**files, "records/advisory-1.leaf": two, "records/advisory-2.leaf": one}
    assert run_in_memory(listed(swapped)) == 1
    # The proof of an advisory's log says nothing about a leaf of the runs' log.
    other = {**files, "records/run.tlog-proof": files["records/advisory-1.tlog-proof"]}
    assert run_in_memory(listed(other)) == 1


def test_an_advisory_of_another_run_is_refused(bundle: Path, store: Path) -> None:
    red = members(make_bundle(store, store.parent / "red.zip", "saw_red"))
    files = members(bundle)
    for end in ("leaf", "tlog-proof"):
        files[f"records/advisory-1.{end}"] = red[f"records/advisory-1.{end}"]
    with pytest.raises(verify.RefusedError, match="expected an advisory of the same run"):
        verify.check_bundle(InMemory(listed(files)), [], None)


def test_an_advisory_that_is_left_out_is_not_missed(bundle: Path) -> None:
    """The bundle says so: what is not in it is not disproved."""
    files = members(bundle)
    for name in ("records/advisory-2.leaf", "records/advisory-2.tlog-proof"):
        del files[name]
    del files["files/runs/2025-12-18/saw_1_advisory_adv_3.json"]
    assert run_in_memory(files) == 4
    assert run_in_memory(listed(files)) == 0


def test_a_bundle_without_an_attachment_is_incomplete(bundle: Path, tmp_path: Path) -> None:
    files = members(bundle)
    digest = sha256(SHARED)
    del files[f"files/attachments/{digest[:2]}/{digest[2:4]}/{digest}"]
    found = run(write_members(tmp_path / "b.zip", files), "--key", VKEY)
    assert found == run(write_members(tmp_path / "c.zip", listed(files)), "--key", VKEY)
    assert found.status == 4
    assert found.text.splitlines()[-1] == (
        "RESULT       incomplete, files that are named and not here: 1; the log recorded those "
        "that are here"
    )
    assert run(tmp_path / "c.zip").text.splitlines()[-1].endswith("origin not proven")
    assert run(tmp_path / "c.zip").status == 3
    assert f"MISSING      {digest}  dxf_input  part.dxf\n" in found.text
    assert "attachments  1 have the hash that is their name" in found.text


def test_gcode_that_became_an_attachment_is_checked(store: Path, tmp_path: Path) -> None:
    path = make_bundle(store, tmp_path / "large.zip", "large")
    assert run(path, "--key", VKEY).status == 0
    (name,) = [name for name in members(path) if name.startswith("files/attachments/")]
    changed = with_changes(path, tmp_path / "b.zip", **{name: lambda content: content + b"\n"})
    found = run(changed, "--key", VKEY)
    assert (found.status, found.text[:28]) == (1, "REFUSED      the attachment ")


def test_the_json_of_an_older_store_is_checked_by_its_canonical_form(
    bundle: Path, tmp_path: Path
) -> None:
    content = b'{ "b": 1,\n "a": [1.0] }'
    digest = verify.sha256_of_json(json.loads(content))
    files = {"FORMAT": b"rmos.evidence/2\n", "old": content, "canonical": b'{"a":[1.0],"b":1}'}
    path = InMemory(files)
    assert verify.is_legacy_json(path, "old", digest)
    assert not verify.is_legacy_json(path, "old", "0" * 64)
    assert not verify.is_legacy_json(path, "canonical", digest)
    assert not verify.is_legacy_json(path, "FORMAT", digest)
    del bundle, tmp_path


# Held checkpoints that are older, newer, or of another history.


def at(root: Path) -> dict[str, Checkpoint]:
    return {
        each.checkpoint.origin: each.checkpoint for each in parse_trusted(checkpoints_now(root))
    }


@pytest.fixture
def grown(tmp_path: Path) -> tuple[Path, bytes]:
    """Give a store, and the checkpoints that were handed out before it grew."""
    root = proven_store(tmp_path / "grown")
    before = checkpoints_now(root)
    go_on(root, requests=LATER, start=4)
    return root, before


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def checkpoints(content: bytes) -> dict[str, Checkpoint]:
    return {each.checkpoint.origin: each.checkpoint for each in parse_trusted(content)}


def test_a_bundle_made_for_what_is_held_proves_that_the_log_went_on(
    grown: tuple[Path, bytes], tmp_path: Path
) -> None:
    root, before = grown
    path = make_bundle(root, tmp_path / "b.zip", trusted=checkpoints(before))
    found = run(path, "--trusted", write(tmp_path / "held", before))
    assert found.status == 0, found.text
    assert (
        "the log begins with the 4 leaves of the checkpoint that you hold, and this is one of them"
        in found.text
    )


def test_without_the_proof_it_says_which_checkpoint_would_do(
    grown: tuple[Path, bytes], tmp_path: Path
) -> None:
    root, before = grown
    path = make_bundle(root, tmp_path / "b.zip")
    found = run(path, "--trusted", write(tmp_path / "held", before))
    assert found.status == 3
    assert (
        "not proven   run: the bundle fits none, or a checkpoint of 13 leaves, you hold one of 4: "
        "ask for a bundle made with what you hold (rmos evidence RUN_ID --trusted FILE)"
        in found.text
    )


def test_a_checkpoint_newer_than_the_bundle_asks_for_a_new_bundle(
    grown: tuple[Path, bytes], tmp_path: Path
) -> None:
    root, _ = grown
    old = proven_store(tmp_path / "old")
    path = make_bundle(old, tmp_path / "b.zip")
    found = run(path, "--trusted", write(tmp_path / "held", checkpoints_now(root)))
    assert found.status == 3
    assert "you hold a checkpoint of 13 leaves, the bundle has one of 4" in found.text


def test_a_leaf_newer_than_what_is_held_needs_the_key_too(
    grown: tuple[Path, bytes], tmp_path: Path
) -> None:
    """Whoever knows the held tree can go on with leaves of his own: only a signature counts."""
    root, before = grown
    path = make_bundle(root, tmp_path / "b.zip", "later_3", trusted=checkpoints(before))
    held = write(tmp_path / "held", before)
    found = run(path, "--trusted", held)
    assert found.status == 3
    assert "and this leaf came after them: give --key too" in found.text
    assert run(path, "--trusted", held, "--key", VKEY).status == 0
    assert run(path, "--trusted", held, "--key", OTHER_KEY).status == 1


def test_a_checkpoint_of_no_leaves_proves_nothing(bundle: Path, tmp_path: Path) -> None:
    empty = write_trusted(
        sign_checkpoint(Checkpoint(origin, 0, verify.EMPTY_ROOT), [SIGNER])
        for origin in {
            verify.parse_inclusion(content).checkpoint.origin
            for name, content in members(bundle).items()
            if name.endswith(".tlog-proof")
        }
    )
    assert run(bundle, "--trusted", write(tmp_path / "held", empty)).status == 3


def test_a_history_written_anew_with_the_stolen_key_is_refused(
    grown: tuple[Path, bytes], tmp_path: Path
) -> None:
    _, before = grown
    for number, extra in enumerate(([], LATER)):
        forged = proven_store(
            tmp_path / f"forged-{number}",
            requests=[(0, run_request(run_id="saw_1", notes="forged")), *REQUESTS[1:], *extra],
            advisories=[],
        )
        path = make_bundle(forged, tmp_path / f"{number}.zip")
        held = write(tmp_path / "held", before)
        # The key alone cannot tell: it is the true one.
        assert run(path, "--key", VKEY).status == 0
        found = run(path, "--trusted", held, "--key", VKEY)
        if extra:
            assert found.status == 3
            path = with_forged_consistency(path, tmp_path / "c.zip", before)
            found = run(path, "--trusted", held, "--key", VKEY)
        assert found.status == 1
        assert found.text.startswith("REFUSED ")


def with_forged_consistency(path: Path, to: Path, before: bytes) -> Path:
    """Add the proof from the forger's own tree of the size that is held."""
    files = members(path)
    proof = verify.parse_inclusion(files["records/run.tlog-proof"])
    size = checkpoints(before)[proof.checkpoint.origin].size
    content = f"old {size}\n".encode() + b"".join(
        verify.base64.b64encode(node) + b"\n" for node in proof.path
    )
    files["records/run.consistency"] = content + b"\n" + proof.checkpoint.note
    return write_members(to, listed(files))


def test_any_changed_byte_of_a_consistency_proof_or_a_held_checkpoint_is_not_proven(
    grown: tuple[Path, bytes], tmp_path: Path
) -> None:
    root, before = grown
    path = make_bundle(root, tmp_path / "b.zip", trusted=checkpoints(before))
    files = members(path)
    held = verify.parse_held(before)
    name = "records/run.consistency"
    assert verify.check_bundle(InMemory(files), [], held).reasons == []
    for place in range(len(files[name])):
        changed = bytearray(files[name])
        changed[place] ^= 1
        with contextlib.suppress(verify.RefusedError):
            forged = listed({**files, name: bytes(changed)})
            account = verify.check_bundle(InMemory(forged), [], held)
            assert account.reasons
    # The signature of what is held is not looked at: the bytes are trusted. The rest counts.
    for place in range(len(before)):
        changed = bytearray(before)
        changed[place] ^= 1
        with contextlib.suppress(verify.RefusedError, verify.UnreadableError):
            other = verify.parse_held(bytes(changed))
            account = verify.check_bundle(InMemory(files), [], other)
            assert account.reasons or said_the_same(held, other)


def said_the_same(
    held: Mapping[str, verify.Checkpoint], other: Mapping[str, verify.Checkpoint]
) -> bool:
    ours = {"runs.requests/0", "advisories.requests/0"}
    return all(
        (held[name].size, held[name].root) == (other[name].size, other[name].root)
        for name in held
        if any(name.endswith(end) for end in ours)
    )


# What cannot be read.


def test_what_is_no_bundle_cannot_be_read(bundle: Path, tmp_path: Path) -> None:
    content = bundle.read_bytes()
    (tmp_path / "empty").mkdir()
    for number, wrong in enumerate((b"", b"PK", content[:-30], content[: len(content) // 2])):
        assert run(write(tmp_path / f"{number}.zip", wrong)).status == 2
    assert run(tmp_path / "empty").status == 2
    assert run(tmp_path / "nowhere.zip").status == 2
    assert run(bundle, "--trusted", tmp_path / "nowhere").status == 2
    assert run(bundle, "--trusted", write(tmp_path / "held", b"no checkpoint\n")).status == 2


@pytest.mark.parametrize(
    "name",
    ["FORMAT", "records/run.leaf", "records/run.tlog-proof", "files/runs/2025-12-18/saw_1.json"],
)
def test_a_bundle_without_one_of_its_files_cannot_be_read(
    bundle: Path, tmp_path: Path, name: str
) -> None:
    found = run(with_changes(bundle, tmp_path / "b.zip", **{name: None}))
    assert found.status == 2


def test_another_format_cannot_be_read(bundle: Path, tmp_path: Path) -> None:
    found = run(with_changes(bundle, tmp_path / "b.zip", FORMAT=b"rmos.evidence/1\n"))
    assert found.text == "UNREADABLE   expected a bundle of the format rmos.evidence/2\n"


def test_one_name_for_two_files_cannot_be_read(bundle: Path, tmp_path: Path) -> None:
    """Of two files one would be checked and the other one looked at."""
    shutil.copy(bundle, tmp_path / "b.zip")
    with (
        zipfile.ZipFile(tmp_path / "b.zip", "a") as archive,
        pytest.warns(UserWarning, match="Dup"),
    ):
        archive.writestr("records/run.leaf", b"{}")
    found = run(tmp_path / "b.zip")
    assert found.text == "UNREADABLE   expected every name once, found records/run.leaf twice\n"


def appended(content: bytes) -> bytes:
    return content + b"more"


def commented(content: bytes) -> bytes:
    return content[:-2] + b"\x04\x00" + b"more"


def prepended(content: bytes) -> bytes:
    return b"#!/bin/sh\n" + content


def hiding(content: bytes) -> bytes:
    """Put a member where the directory does not name it, as `jar` and `bsdtar -x` would find it."""
    end = content.rindex(b"PK\x05\x06")
    start = int.from_bytes(content[end + 16 : end + 20], "little")
    hidden = content[: content.index(b"PK\x03\x04", 4)]
    moved = (start + len(hidden)).to_bytes(4, "little")
    tail = content[start : end + 16] + moved + content[end + 20 :]
    return content[:start] + hidden + tail


@pytest.mark.parametrize("change", [appended, commented, prepended, hiding])
def test_a_zip_file_with_bytes_of_no_member_cannot_be_read(
    bundle: Path, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = write(tmp_path / "b.zip", change(bundle.read_bytes()))
    assert zipfile.ZipFile(path).testzip() is None
    found = run(path, "--key", VKEY)
    assert (found.status, "has bytes that are no part of a file" in found.text) == (2, True)


def test_a_zip_file_cut_anywhere_cannot_be_read(bundle: Path, tmp_path: Path) -> None:
    content = bundle.read_bytes()
    for end in [*range(0, len(content), 997), *range(len(content) - 30, len(content))]:
        assert run(write(tmp_path / "b.zip", content[:end]), "--key", VKEY).status == 2


def unpacked(bundle: Path, folder: Path) -> Path:
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(folder)
    return folder


def test_what_is_put_beside_the_files_of_a_folder_is_refused(bundle: Path, tmp_path: Path) -> None:
    folder = unpacked(bundle, tmp_path / "b")
    assert run(folder, "--key", VKEY).status == 0
    (folder / "files/runs/2025-12-19").mkdir()
    assert run(folder).text == "REFUSED      nothing explains files/runs/2025-12-19\n"
    (folder / "files/runs/2025-12-19").rmdir()
    (folder / "files/link").symlink_to(bundle)
    assert run(folder).status == 2
    (folder / "files/link").unlink()
    (folder / "FORMAT").rename(tmp_path / "FORMAT")
    (folder / "FORMAT").symlink_to(tmp_path / "FORMAT")
    assert run(folder).status == 2


def test_a_key_that_the_reader_did_not_give_is_named(bundle: Path, tmp_path: Path) -> None:
    """Whoever adds a signature of their own may list their key too: it must not look trusted."""
    files, thief = members(bundle), signer(SIGNER.name, seed=2)
    for name in [name for name in files if name.endswith(".tlog-proof")]:
        head, _, note = files[name].partition(b"\n\n")
        found = verify.parse_checkpoint(note)
        both = sign_checkpoint(Checkpoint(found.origin, found.size, found.root), [SIGNER, thief])
        files[name] = head + b"\n\n" + both
    files["vkeys.txt"] += f"{thief.key}\n".encode()
    told = run(write_members(tmp_path / "b.zip", listed(files)), "--key", VKEY)
    assert told.status == 0
    assert f"signed by {thief.key.name}+{thief.key.key_id.hex()} too" in told.text
    assert "you did not give this key" in told.text


def test_a_bundle_packed_again_is_the_same_evidence(bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in reversed(members(bundle).items()):
            archive.writestr(name, content)
    assert run(tmp_path / "b.zip", "--key", VKEY).status == 0


def test_flipped_bytes_of_the_zip_file_never_prove_another_run(
    bundle: Path, tmp_path: Path
) -> None:
    """Names, sums and lengths of the zip file itself: refused, or the very same account."""
    content = bundle.read_bytes()
    true = run(bundle, "--key", VKEY).text
    for place in range(0, len(content), 499):
        changed = bytearray(content)
        changed[place] ^= 1
        found = run(write(tmp_path / "b.zip", bytes(changed)), "--key", VKEY)
        assert found.status in {1, 2} or found.text == true, place


def test_what_others_wrote_cannot_act_on_a_terminal(tmp_path: Path) -> None:
    nasty = run_request(
        run_id="nasty",
        status="BLOCKED",
        decision={"block_reason": "\x1b[2J\x1b]0;owned\x07 \u202egnp.exe", "risk_level": "RED"},
    )
    root = proven_store(tmp_path / "store", requests=[(0, nasty)], advisories=[])
    found = run(make_bundle(root, tmp_path / "b.zip", "nasty"), "--key", VKEY)
    assert found.status == 0
    assert "because      \\u001b[2J\\u001b]0;owned\\u0007 \\u202egnp.exe" in found.text
    assert found.text.isprintable() or "\x1b" not in found.text

"""The policy of a bucket that the documents give, enforced by versitygw as far as it knows it.

It knows no condition about conditional writes, and moto knows no conditions at all: of the two
statements that have one only the form is checked.
"""

import json
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("obstore", reason="the extra scale is not installed")

from botocore.exceptions import ClientError

from pipeline.audit.journal import AUDITS_FOLDER
from pipeline.core.layout import ARCHIVES_FOLDER, BlobArea
from pipeline.core.store.identity import STORE_FILE
from pipeline.core.store.log_store import CHECKPOINT_FILE, LEDGER_FOLDER
from pipeline.storage.awaited_blobs import AWAITED_FOLDER
from tests.bucket.servers import BUCKET, KEYS, built_versitygw, s3_client, versitygw_server

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples" / "bucket"
POLICY = json.loads((EXAMPLES / "policy.json").read_text(encoding="utf-8"))
STATEMENTS = {each["Sid"]: each for each in POLICY["Statement"]}
ROLE = "arn:aws:iam::111122223333:role/rmos-"
WITH_CONDITIONS = {"RecordsAreNeverReplaced", "NothingIsReplacedBlindly"}

RUN, BLOB, WITHHELD = "runs/2025-12-18/a.json", "attachments/aa/bb/c", "quarantine/aa/bb/c"
CHECKPOINT, NOTE = f"{LEDGER_FOLDER}/1/log/{CHECKPOINT_FILE}", f"{AWAITED_FOLDER}/c"
PATHS = (RUN, BLOB, WITHHELD, CHECKPOINT, NOTE)
RECORDS = {"runs", ARCHIVES_FOLDER, AUDITS_FOLDER, *(each.value for each in BlobArea)}


def paths_of(sid: str) -> set[str]:
    """Return the folders and files of the store that a statement is about."""
    resources = STATEMENTS[sid]["Resource"]
    listed = resources if isinstance(resources, list) else [resources]
    return {each.removeprefix(f"arn:aws:s3:::{BUCKET}/rmos/").removesuffix("/*") for each in listed}


def test_every_record_is_protected_and_nothing_else() -> None:
    for sid in ("RecordsAreNeverRemoved", "RecordsAreNeverReplaced"):
        assert paths_of(sid) == RECORDS
    assert paths_of("NothingIsReplacedBlindly") == {LEDGER_FOLDER, STORE_FILE}
    assert paths_of("WorkersRemoveSupersededTiles") == {LEDGER_FOLDER}
    assert paths_of("HostsRemoveNotesOfBlobsThatCame") == {AWAITED_FOLDER}


def test_what_the_server_of_tests_does_not_know_has_the_form_of_the_manual() -> None:
    """Form: docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html."""
    assert {sid for sid, each in STATEMENTS.items() if "Condition" in each} == WITH_CONDITIONS
    for sid in WITH_CONDITIONS:
        assert STATEMENTS[sid]["Action"] == "s3:PutObject"
        condition = dict(STATEMENTS[sid]["Condition"])
        # The parts of a large upload have no condition; nothing is there before its end.
        assert condition.pop("Bool") == {"s3:ObjectCreationOperation": "true"}
        assert condition.keys() == {"Null"}
        assert condition["Null"].keys() <= {"s3:if-none-match", "s3:if-match"}


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Give clients of a worker, of an API and of the owner, in a bucket with the policy."""
    folder = tmp_path_factory.mktemp("policy")
    (folder / "users").mkdir()
    with ExitStack() as stack:
        options = "--iam-dir", str(folder / "users")
        address = stack.enter_context(versitygw_server(folder / "root", *options))
        owner = KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"]
        for name in ("worker", "api"):
            subprocess.run(
                [
                    *(built_versitygw(), "admin", "--access", owner[0], "--secret", owner[1]),
                    *("--endpoint-url", address, "create-user", "-a", name, "-s", name * 3),
                    *("-r", "user"),
                ],
                check=True,
                capture_output=True,
            )
        known = [each for sid, each in STATEMENTS.items() if sid not in WITH_CONDITIONS]
        policy = json.dumps({**POLICY, "Statement": known}).replace(ROLE, "")
        client = s3_client(address)
        stack.callback(client.close)
        client.put_bucket_policy(Bucket=BUCKET, Policy=policy)
        made = {name: s3_client(address, name, name * 3) for name in ("worker", "api")}
        for each in made.values():
            stack.callback(each.close)
        yield {**made, "owner": client}


CALLS: dict[str, Callable[[Any, str], Any]] = {
    "read": lambda client, key: client.get_object(Bucket=BUCKET, Key=key)["Body"].close(),
    "write": lambda client, key: client.put_object(Bucket=BUCKET, Key=key, Body=b"1"),
    "remove": lambda client, key: client.delete_object(Bucket=BUCKET, Key=key),
}
MAY = {
    ("worker", "read"): set(PATHS),
    ("worker", "write"): set(PATHS),
    ("worker", "remove"): {CHECKPOINT, NOTE},
    ("api", "read"): {RUN, BLOB, CHECKPOINT, NOTE},
    ("api", "write"): {BLOB},
    ("api", "remove"): {NOTE},
}


@pytest.mark.slow
@pytest.mark.parametrize(("user", "call"), MAY)
def test_a_role_may_do_what_it_needs_and_no_more(users: Any, user: str, call: str) -> None:
    allowed = set()
    for path in PATHS:
        CALLS["write"](users["owner"], f"rmos/{path}")
        with suppress(ClientError):
            CALLS[call](users[user], f"rmos/{path}")
            allowed.add(path)
    assert allowed == MAY[user, call]
    # Without this right a server says of a key that is not there that it is denied.
    assert users[user].list_objects_v2(Bucket=BUCKET)["KeyCount"]


def test_lock_and_lifecycle_are_taken_and_records_never_expire(moto: str) -> None:
    lock = json.loads((EXAMPLES / "object-lock.json").read_text(encoding="utf-8"))
    rules = json.loads((EXAMPLES / "lifecycle.json").read_text(encoding="utf-8"))
    client = s3_client(moto)
    client.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    client.put_object_lock_configuration(Bucket="locked", ObjectLockConfiguration=lock)
    client.put_bucket_lifecycle_configuration(Bucket="locked", LifecycleConfiguration=rules)
    client.close()
    for rule in rules["Rules"]:
        assert not rule.keys() & {"Expiration", "Transitions"}
        expires = "NoncurrentVersionExpiration" in rule
        assert rule["Filter"]["Prefix"] == ("rmos/ledger/" if expires else "")

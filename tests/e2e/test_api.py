"""Every route that publishes, on the real broker: the right answer, and each refusal."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.app.persist import persist_worker
from pipeline.broker.admin.topics import partition_offsets
from pipeline.broker.local.broker import LocalBroker
from pipeline.client import RunsClient
from pipeline.core.hashing import sha256_of_bytes
from pipeline.errors import (
    HashMismatchError,
    InputError,
    NotFoundError,
    RefusedError,
    ServiceError,
)
from schemas.http_answers import (
    AcceptedAnswer,
    AttachedAnswer,
    BlockedRun,
    RunView,
    SubmittedRun,
)
from tests.builders import (
    ABSENT,
    advisory_request,
    attachment,
    attachment_ref,
    encode,
    incomplete_request,
    red_request,
    run_request,
    sha256,
)
from tests.e2e.api_service import JSON, RUNS, ApiService, api_only, api_service
from tests.e2e.kafka_reading import (
    new_settings,
    produce,
    read_topic,
    sending,
    topics_and_store,
    wait_until_consumed,
)

pytestmark = pytest.mark.e2e

_numbers = iter(range(10_000))
NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
async def api(
    broker: LocalBroker, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ApiService]:
    async with api_service(broker, tmp_path_factory.mktemp("api") / "store") as service:
        yield service


@pytest.fixture
async def client(api: ApiService) -> AsyncIterator[RunsClient]:
    async with RunsClient(str(api.http.base_url)) as running:
        yield running


def new_id(prefix: str = "run") -> str:
    return f"{prefix}_{next(_numbers)}"


def advisory(**changes: Any) -> dict[str, Any]:
    """Return the body of an attach request."""
    return advisory_request(**{"run_id": ABSENT, "created_at_utc": ABSENT, **changes})


async def count_of_requests(api: ApiService, topic: str) -> int:
    ranges = await partition_offsets(api.settings, [topic])
    return sum(each.end - each.beginning for each in ranges.values())


async def test_a_run_without_an_identity_gets_one(api: ApiService) -> None:
    answer = await api.post(run_request(run_id=ABSENT, created_at_utc=ABSENT))
    assert answer.status_code == 201
    run = SubmittedRun.model_validate_json(answer.content)
    assert (run.status, run.may_cut, run.outcome) == ("OK", True, "persisted")
    assert run.run_id.startswith("run_")
    assert answer.headers["location"] == f"{RUNS}/{run.run_id}"
    content = (await api.get(f"/{run.run_id}/download")).content
    assert sha256_of_bytes(content) == run.artifact_sha256
    assert content == api.path(run.artifact_path).read_bytes()


async def test_the_body_with_the_identity_of_the_answer_is_the_same_request(
    api: ApiService,
) -> None:
    body = run_request(run_id=ABSENT, created_at_utc=ABSENT, meta={"x": 1.0, "n": 10**30})
    first = (await api.post(body)).json()
    identity = {name: first[name] for name in ("run_id", "created_at_utc")}
    again = await api.post({**identity, **body})
    assert again.status_code == 200
    assert again.json() == {**first, "outcome": "duplicate"}
    # One is not one point zero: another request.
    other = await api.post({**identity, **body, "meta": {"x": 1, "n": 10**30}})
    assert (other.status_code, other.json()["error"]) == (409, "RUN_CONFLICT")
    assert other.json()["run_id"] == identity["run_id"]


async def test_a_client_of_the_original_asks_for_a_run_and_attaches_an_advisory(
    api: ApiService,
) -> None:
    body = {
        "mode": "saw",
        "tool_id": "saw:veneer_160",
        "event_type": "approval",
        "request_summary": {"design": "rosette", "depth": 1.5},
        "feasibility": {"risk_bucket": "GREEN", "score": 92.5},
        "decision": None,
        "meta": {},
    }
    first = await api.post(body)
    assert first.status_code == 201
    identity = {name: first.json()[name] for name in ("run_id", "created_at_utc")}
    view = (await api.get(f"/{identity['run_id']}")).json()
    assert view["request_summary"] == body["request_summary"]
    ours = {**identity, **body, "request": body["request_summary"]}
    del ours["request_summary"]
    for again in ({**identity, **body}, ours):
        answer = await api.post(again)
        assert answer.status_code == 200
        assert answer.json() == {**first.json(), "outcome": "duplicate"}
    attached = await api.attach(identity["run_id"], {"advisory_id": "adv_1", "engine_id": "e"})
    assert (attached.status_code, attached.json()["status"]) == (200, "attached")
    (advisory,) = (await api.get(f"/{identity['run_id']}/advisories")).json()["advisories"]
    assert (advisory["kind"], advisory["engine_id"]) == ("unknown", "e")


async def test_what_is_sent_is_the_callers_bytes(api: ApiService) -> None:
    run_id = new_id()
    body = b" " + encode(run_request(run_id=run_id)).replace(b":1800.0", b": 1.8e3") + b"\n"
    headers = {
        **JSON,
        "x-request-id": "trace-me",
        "traceparent": "00-1-2-03",
        "tracestate": "a=1,b=2",
    }
    answer = await api.http.post(RUNS, content=body, headers=headers)
    assert (answer.status_code, answer.headers["x-request-id"]) == (201, "trace-me")
    topic = api.settings.topics.run_requests
    (found,) = [each for each in await read_topic(api.settings, topic) if each.value == body]
    assert found.key == run_id.encode()
    carried = {"traceparent": b"00-1-2-03", "tracestate": b"a=1,b=2"}
    assert dict(found.headers) == {"x-request-id": b"trace-me", **carried}
    assert b"trace-me" not in (await api.get(f"/{run_id}/download")).content


async def test_a_red_run_is_stored_and_blocked_also_the_second_time(api: ApiService) -> None:
    request = red_request(run_id=new_id())
    for outcome in ("persisted", "duplicate"):
        answer = await api.post(request)
        assert answer.status_code == 409
        blocked = BlockedRun.model_validate_json(answer.content)
        assert (blocked.error, blocked.status, blocked.may_cut) == (
            "SAFETY_BLOCKED",
            "BLOCKED",
            False,
        )
        assert blocked.outcome == outcome
        assert blocked.decision.risk_level == "RED"
    view = RunView.model_validate_json((await api.get(f"/{request['run_id']}")).content)
    assert view.outputs.gcode_text is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"run_id": ABSENT}, "both, or none"),
        ({"created_at_utc": ABSENT}, "both, or none"),
        ({"created_at_utc": None}, "both, or none"),
        ({"run_id": "../x"}, "run_id"),
        ({"run_id": 5}, "run_id"),
        ({"run_id": "diff"}, "run_id"),
        ({"run_id": "x\n"}, "run_id"),
        ({"created_at_utc": "2025-02-30T00:00:00Z"}, "created_at_utc"),
        ({"schema_version": "rmos.run_request/2"}, "schema_version"),
        ({"tool_id": ABSENT}, "tool_id"),
        ({"feasibility": {}}, "feasibility"),
        ({"mode": "a\x00b"}, "mode"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
async def test_a_request_that_is_not_complete_is_refused_and_not_published(
    api: ApiService, changes: dict[str, Any], why: str
) -> None:
    topic = api.settings.topics.run_requests
    before = await count_of_requests(api, topic)
    answer = await api.post(run_request(**{"run_id": new_id(), **changes}))
    assert (answer.status_code, answer.json()["error"]) == (422, "INVALID_REQUEST")
    assert why in answer.json()["message"]
    assert await count_of_requests(api, topic) == before


async def test_an_advisory_is_attached_and_changes_nothing_of_the_run(api: ApiService) -> None:
    run_id = new_id()
    stored = (await api.post(run_request(run_id=run_id))).json()
    file = api.path(stored["artifact_path"])
    before = (file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino)
    answer = await api.attach(run_id, advisory(advisory_id="why"))
    assert answer.status_code == 200
    attached = AttachedAnswer.model_validate_json(answer.content)
    assert (attached.run_id, attached.advisory_id, attached.status) == (run_id, "why", "attached")
    again = await api.attach(run_id, advisory(advisory_id="why"))
    assert (again.status_code, again.json()["status"]) == (200, "already_attached")
    assert (file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_ino) == before
    listed = (await api.get(f"/{run_id}/advisories")).json()
    assert listed["count"] == 1
    content = await api.http.get(listed["advisories"][0]["download_url"])
    assert content.text == advisory_request()["content_text"]
    assert (await api.get(f"/{run_id}")).json()["explanation_status"] == "READY"


@pytest.mark.parametrize(
    "changes", [{"kind": "note"}, {"engine_version": "other"}, {"content_text": "other"}]
)
async def test_another_advisory_of_the_same_name_is_a_conflict(
    api: ApiService, changes: dict[str, Any]
) -> None:
    run_id = new_id()
    await api.post(run_request(run_id=run_id))
    assert (await api.attach(run_id, advisory())).status_code == 200
    answer = await api.attach(run_id, advisory(**changes))
    assert (answer.status_code, answer.json()["error"]) == (409, "ADVISORY_CONFLICT")


@pytest.mark.parametrize(
    "changes",
    [
        {"run_id": "other"},
        {"advisory_id": ABSENT},
        {"advisory_id": ""},
        {"advisory_id": "a/b"},
        {"advisory_id": "a" * 101},
        {"kind": "praise"},
        {"content_json": {"a": 1}},
        {"content_sha256": "x", "content_text": ABSENT},
        {"nonsense": 1},
        {"created_at_utc": "yesterday"},
    ],
)
async def test_an_advisory_of_another_form_is_refused_and_not_published(
    api: ApiService, changes: dict[str, Any]
) -> None:
    run_id = new_id()
    await api.post(run_request(run_id=run_id))
    topic = api.settings.topics.advisory_requests
    before = await count_of_requests(api, topic)
    answer = await api.attach(run_id, advisory(**changes))
    assert (answer.status_code, answer.json()["error"]) == (422, "INVALID_ADVISORY")
    assert await count_of_requests(api, topic) == before


async def test_an_advisory_for_no_run_is_not_published(api: ApiService) -> None:
    before = await count_of_requests(api, api.settings.topics.advisory_requests)
    answer = await api.attach("nobody", advisory())
    assert (answer.status_code, answer.json()["error"]) == (404, "RUN_NOT_FOUND")
    assert await count_of_requests(api, api.settings.topics.advisory_requests) == before


async def test_an_uploaded_blob_is_shown_by_the_run_that_names_it(api: ApiService) -> None:
    content = os.urandom(1000)
    assert (await api.put(sha256(content), content)).status_code == 201
    run_id = new_id()
    await api.post(run_request(run_id=run_id, attachments=[attachment_ref(content)]))
    found = await api.get(f"/{run_id}/attachments/{sha256(content)}", Range="bytes=10-19")
    assert (found.status_code, found.content) == (206, content[10:20])
    verified = (await api.get(f"/{run_id}/attachments/verify")).json()["verification"]
    assert verified["ok"] is True


async def test_answer_and_event_name_a_program_that_is_not_there_until_it_is(
    api: ApiService,
) -> None:
    program = b"G1 X1 (f\xfcr die S\xe4ge)\n" + os.urandom(20)
    cut = attachment_ref(program, kind="gcode", mime="text/plain", filename="a.nc")
    body = run_request(run_id=new_id(), outputs=ABSENT, attachments=[cut])
    first = await api.post(body)
    assert first.status_code == 201
    shown = first.json()
    assert (shown["gcode_sha256"], shown["gcode_known_by"]) == (sha256(program), "attached")
    assert (shown["missing_attachments"], shown["may_cut"]) == ([sha256(program)], True)
    await api.put(sha256(program), program)
    again = await api.post(body)
    assert again.json() == {**shown, "outcome": "duplicate", "missing_attachments": []}


async def test_the_blob_of_an_advisory_can_be_uploaded_first(api: ApiService) -> None:
    content = os.urandom(500)
    await api.put(sha256(content), content)
    run_id = new_id()
    await api.post(run_request(run_id=run_id))
    answer = await api.attach(run_id, advisory(content_text=ABSENT, content_sha256=sha256(content)))
    assert answer.status_code == 200
    found = await api.get(f"/{run_id}/attachments/{sha256(content)}")
    assert found.content == content
    assert found.headers["content-disposition"] == 'attachment; filename="adv_1.bin"'


async def test_many_requests_at_once_each_get_their_own_event(api: ApiService) -> None:
    ids = [new_id("many") for _ in range(60)]
    requests = [
        (red_request if number % 3 == 0 else run_request)(run_id=run_id)
        for number, run_id in enumerate(ids)
    ]
    answers = await asyncio.gather(*(api.post(request) for request in requests))
    assert [answer.json()["run_id"] for answer in answers] == ids
    assert [answer.status_code for answer in answers] == [
        409 if number % 3 == 0 else 201 for number in range(60)
    ]


@pytest.mark.slow
async def test_the_cursor_walk_visits_every_run_once_while_5000_more_arrive(
    api: ApiService,
) -> None:
    there = await arrive(api, "walk", 200)
    arriving = asyncio.create_task(arrive(api, "arriving", 5000))
    walks = 0
    while not arriving.done():
        found = await walk(api)
        assert len(found) == len(set(found))
        assert set(there) <= set(found)
        walks += 1
    assert walks > 0
    assert sorted(await walk(api)) == sorted([*there, *await arriving])


async def walk(api: ApiService) -> list[str]:
    """Go through every page of the listing; return the runs in their order."""
    found: list[str] = []
    query = "?mode=walk&limit=20"
    while True:
        page = (await api.get(query)).json()
        found += [item["run_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            return found
        query = f"?mode=walk&limit=200&cursor={page['next_cursor']}"


async def arrive(api: ApiService, name: str, count: int) -> list[str]:
    """Publish runs of a whole month, before and behind any cursor; return when all are stored."""
    run_ids = [new_id(name) for _ in range(count)]
    await produce(
        api.settings,
        (
            sending(
                run_request(
                    run_id=run_id, created_at_utc=f"2025-12-{n % 30 + 1:02d}T00:00:00Z", mode="walk"
                )
            )
            for n, run_id in enumerate(run_ids)
        ),
    )
    await wait_until_consumed(api.settings)
    return run_ids


async def test_health_and_metrics_of_a_whole_service(api: ApiService) -> None:
    assert (await api.http.get("/health/live")).json() == {"live": True}
    ready = await api.http.get("/health/ready")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    text = (await api.http.get("/metrics")).text
    assert 'rmos_http_requests_total{method="GET",route="/health/ready",status="200"}' in text


async def test_a_post_that_is_not_judged_in_time_is_accepted_and_its_retry_is_no_conflict(
    broker: LocalBroker, tmp_path: Path
) -> None:
    settings = new_settings(broker, tmp_path / "store", receipt_timeout_seconds=0.2)
    async with topics_and_store(broker, settings):
        body = run_request(run_id=ABSENT, created_at_utc=ABSENT)
        async with api_only(settings) as api:
            answer = await api.post(body)
            assert answer.status_code == 202
            accepted = AcceptedAnswer.model_validate_json(answer.content)
            assert answer.headers["location"] == f"{RUNS}/{accepted.run_id}"
            assert (await api.get(f"/{accepted.run_id}")).status_code == 404
        identity = {"run_id": accepted.run_id, "created_at_utc": accepted.created_at_utc}
        async with (
            persist_worker(settings),
            api_only(settings, receipt_timeout_seconds=30.0) as api,
        ):
            again = await api.post({**body, **identity})
        assert (again.status_code, again.json()["outcome"]) == (200, "duplicate")


async def test_without_a_broker_runs_are_read_and_none_is_published(
    broker: LocalBroker, tmp_path: Path
) -> None:
    settings = new_settings(broker, tmp_path / "store")
    async with topics_and_store(broker, settings):
        body = run_request(run_id=ABSENT, created_at_utc=ABSENT)
        async with api_only(settings, bootstrap_servers=NOBODY) as api:
            answer = await api.post(body)
            assert (answer.status_code, answer.json()["error"]) == (503, "BROKER_UNAVAILABLE")
            assert str(settings.data_dir) not in answer.text
            assert NOBODY not in answer.text
            assert (await api.get()).json()["items"] == []
            ready = await api.http.get("/health/ready")
            assert (ready.status_code, ready.json()["checks"]["broker answers"]) == (503, False)
        identity = {name: answer.json()[name] for name in ("run_id", "created_at_utc")}
        async with persist_worker(settings), api_only(settings) as api:
            again = await api.post({**body, **identity})
        assert (again.status_code, again.json()["outcome"]) == (201, "persisted")


async def test_a_broker_of_another_store_is_refused(broker: LocalBroker, tmp_path: Path) -> None:
    settings = new_settings(broker, tmp_path / "store")
    async with topics_and_store(broker, settings):
        identity = json.loads((settings.data_dir / "store.json").read_bytes())
        (settings.data_dir / "store.json").unlink()
        (settings.data_dir / "store.json").write_text(
            json.dumps({**identity, "cluster_id": "another"})
        )
        async with api_only(settings) as api:
            answer = await api.post(run_request())
    assert (answer.status_code, answer.json()["error"]) == (503, "STORE_UNAVAILABLE")


async def test_a_corrupt_run_is_reported_to_who_posts_it_again(api: ApiService) -> None:
    request = run_request(run_id=new_id())
    stored = (await api.post(request)).json()
    file = api.path(stored["artifact_path"])
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:-1] + b"]")
    answer = await api.post(request)
    assert (answer.status_code, answer.json()["error"]) == (500, "ARTIFACT_CORRUPT")
    file.unlink()
    file.write_bytes(content)


async def test_the_client_knows_every_route(
    api: ApiService, client: RunsClient, tmp_path: Path
) -> None:
    blob = tmp_path / "part.dxf"
    blob.write_bytes(os.urandom(3 << 20))
    stored = await client.upload(blob)
    assert stored.status == "created"
    assert (await client.upload(blob, stored.sha256)).status == "exists"
    run_id = new_id("client")
    ref = attachment_ref(blob.read_bytes())
    submitted = await client.submit(run_request(run_id=run_id, attachments=[ref], mode="client"))
    assert submitted.may_cut
    assert (await client.get_run(run_id)).explanation_status == "NONE"
    assert sha256_of_bytes(await client.download_run(run_id)) == submitted.artifact_sha256
    assert (await client.attach_advisory(run_id, advisory())).status == "attached"
    assert (await client.advisories(run_id)).count == 1
    assert (await client.attachments(run_id)).attachments[0].sha256 == stored.sha256
    assert (await client.verify_attachments(run_id)).verification.ok
    with (tmp_path / "copy").open("wb") as copy:
        assert await client.download_attachment(run_id, stored.sha256, copy) == 3 << 20
    size = await client.download_attachment(run_id, stored.sha256, tmp_path / "new")
    assert size == 3 << 20
    assert (tmp_path / "copy").read_bytes() == blob.read_bytes() == (tmp_path / "new").read_bytes()
    with pytest.raises(FileExistsError):
        await client.download_attachment(run_id, stored.sha256, tmp_path / "new")
    other = new_id("client")
    await client.submit(run_request(run_id=other, mode="client"))
    assert (await client.diff(run_id, other)).a.run_id == run_id
    assert [item.run_id async for item in client.all_runs(mode="client", limit=1)] == [
        other,
        run_id,
    ]
    assert await client.is_ready()


async def test_the_client_raises_what_went_wrong(
    api: ApiService, client: RunsClient, tmp_path: Path
) -> None:
    with pytest.raises(RefusedError, match="SAFETY_BLOCKED") as blocked:
        await client.submit(red_request(run_id=new_id()))
    assert blocked.value.details["status"] == "BLOCKED"
    with pytest.raises(InputError, match="tool_id"):
        await client.submit(incomplete_request(run_id=new_id()))
    with pytest.raises(InputError, match="JSON cannot express"):
        await client.submit(run_request(meta={"x": float("nan")}))
    for run_id in ("nobody", "../x", "diff"):
        with pytest.raises(NotFoundError):
            await client.get_run(run_id)
    with pytest.raises(InputError, match="INVALID_QUERY"):
        await client.list_runs(status="MAYBE")
    (tmp_path / "blob").write_bytes(b"x")
    with pytest.raises(HashMismatchError):
        await client.upload(tmp_path / "blob", "0" * 64)
    async with RunsClient(f"http://{NOBODY}") as nobody:
        with pytest.raises(ServiceError, match="does not answer"):
            await nobody.is_ready()


async def test_no_answer_of_the_whole_service_holds_a_server_path(api: ApiService) -> None:
    run_id = new_id()
    await api.post(run_request(run_id=run_id, attachments=[attachment()]))
    paths = ["", f"/{run_id}", f"/{run_id}/attachments/verify", "/nobody", f"/diff?a={run_id}"]
    answers: list[httpx.Response] = [await api.get(path) for path in paths]
    answers += [await api.http.get(path) for path in ("/openapi.json", "/metrics")]
    for answer in answers:
        assert str(api.settings.data_dir) not in answer.text
        assert str(Path.home()) not in answer.text

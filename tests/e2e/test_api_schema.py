"""Questions to every route out of the OpenAPI document: no failure, no answer it does not tell."""

from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from schemathesis.specs.openapi.schemas import OpenApiSchema

from pipeline.broker.local.broker import LocalBroker
from tests.builders import attachment, encode, run_request, sha256
from tests.e2e.api_service import JSON, RUNS
from tests.e2e.kafka_reading import new_settings, topics_and_store, wait_until
from tests.e2e.worker_processes import RMOS, worker_pool

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

EXAMPLES = 40
OPERATIONS = 16
CONTENT = b"0\nSECTION\n"
KNOWN = {"run_id": "known", "sha256": sha256(CONTENT)}
NOT_ASKED = [
    # A name that matches its pattern may still name nothing.
    negative_data_rejection,
    # What is well-formed may still be in conflict, blocked or not there.
    positive_data_acceptance,
]


@pytest.fixture(scope="module")
async def api_schema(
    broker: LocalBroker, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OpenApiSchema]:
    """Give the document of a whole service, in processes of their own."""
    folder = tmp_path_factory.mktemp("schema")
    chosen = new_settings(broker, folder / "store")
    with worker_pool(folder) as pool:
        async with topics_and_store(broker, chosen):
            workers = [
                pool.fork([str(RMOS), *words.split()], chosen, RMOS_API_PORT="0")
                for words in ("worker persist", "worker advisories", "api")
            ]
            started = ("persist worker started", "advise worker started", "api started")
            for process, said in zip(workers, started, strict=True):
                await wait_until(lambda p=process, s=said: bool(p.logged(s)), said)
            url = f"http://{workers[-1].logged('api started')[0]['address']}"
            schema = schemathesis.openapi.from_url(f"{url}/openapi.json", config=configured())
            store_what_is_known(url)
            yield schema
            for process in workers:
                assert await process.stop() == 0
            faults = [line for line in workers[-1].log_lines() if "exception" in line]
            assert faults == []


def store_what_is_known(url: str) -> None:
    request = run_request(run_id=KNOWN["run_id"], attachments=[attachment(CONTENT)])
    advisory = {"advisory_id": "a", "kind": "note", "content_text": "text"}
    with httpx.Client(base_url=url, headers=JSON, timeout=60) as http:
        assert http.post(RUNS, content=encode(request)).status_code == 201
        path = f"{RUNS}/{KNOWN['run_id']}/attach-advisory"
        assert http.post(path, content=encode(advisory)).status_code == 200


def configured() -> SchemathesisConfig:
    return SchemathesisConfig.from_dict({"generation": {"max-examples": EXAMPLES}})


def test_every_answer_is_one_that_the_document_tells(api_schema: OpenApiSchema) -> None:
    asked: Counter[str] = Counter()
    for found in api_schema.get_all_operations():
        operation = found.ok()
        ask(operation, asked)
    assert len(asked) == OPERATIONS
    assert min(count for label, count in asked.items() if RUNS in label) >= EXAMPLES


def ask(operation: schemathesis.APIOperation, asked: Counter[str]) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @given(data=st.data())
    def questions(data: st.DataObject) -> None:
        mode = data.draw(st.sampled_from(list(GenerationMode)))
        case = data.draw(operation.as_strategy(generation_mode=mode))
        if data.draw(st.booleans()):
            # Made-up names lead to nothing, and what is there has answers too.
            case.path_parameters |= {n: KNOWN[n] for n in case.path_parameters if n in KNOWN}
        answer = case.call(timeout=60)
        asked[operation.label] += 1
        case.validate_response(answer, excluded_checks=NOT_ASKED)

    questions()

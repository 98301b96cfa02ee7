"""Where a log lies and what it is called."""

import pytest

from pipeline.ledger.log_id import LogId, parse_log_path, signer_name
from pipeline.ledger.tlog import EvidenceError
from pipeline.ledger.tlog.notes import VerifierKey
from tests.laws import offenders

LOG = LogId(3, "rmos.runs.requests", 11)


def test_a_log_has_a_folder_and_an_origin() -> None:
    assert LOG.path == "ledger/3/rmos.runs.requests-11"
    assert LOG.origin("ab" * 16) == f"rmos/{'ab' * 16}/3/rmos.runs.requests/11"


@pytest.mark.parametrize("log", [LOG, LogId(1, "a-b-0", 0), LogId(123, "x", 2**31 - 1)])
def test_a_folder_leads_back_to_its_log(log: LogId) -> None:
    assert parse_log_path(log.path) == log


def test_another_folder_is_refused() -> None:
    def holds(path: str) -> None:
        with pytest.raises(EvidenceError, match="expected the folder of a log"):
            parse_log_path(path)

    assert (
        offenders(
            holds,
            [
                "",
                "ledger/1",
                "ledger/0/t-0",
                "ledger/01/t-0",
                "ledger/1/t-00",
                "ledger/1/t",
                "ledger/1/t-",
                "ledger/1/-0",
                "x/1/t-0",
                "ledger/1/t-0/",
                "ledger/1/a/t-0",
                "ledger/1/t-0\n",
            ],
        )
        == []
    )


def test_the_name_of_a_store_may_name_a_key() -> None:
    assert VerifierKey(signer_name("ab" * 16), b"\x00" * 32).name == "rmos/" + "ab" * 16

"""The API about a run whose date is archived: 410 with the record, and still in the lists."""

from pathlib import Path

from tests.api.conftest import RUNS, api_over
from tests.archive.archived import create, remove, restore
from tests.evidence.proven_stores import proven_store

DATE = "2025-12-18"
ROUTES = (
    *("", "/download", "/advisories", "/attachments", "/attachments/verify", "/toolpath"),
    f"/attachments/{'0' * 64}",
)


async def test_an_archived_run_is_gone_with_its_record_and_still_listed(tmp_path: Path) -> None:
    tar = tmp_path / "secret folder" / "old.tar"
    tar.parent.mkdir()
    root = proven_store(tmp_path / "store")
    async with api_over(root) as api:
        shown = (await api.get("/saw_1")).content
        made = create(root, tar)
        remove(made)
        for route in ROUTES:
            answer = await api.get(f"/saw_1{route}")
            assert (answer.status_code, answer.json()["error"]) == (410, "RUN_ARCHIVED"), route
            assert answer.json()["run_id"] == "saw_1"
            tar_of_it = {"path": "old.tar", "sha256": made.records[0].tar.sha256}
            assert answer.json()["archive"]["date"] == DATE
            assert tar_of_it.items() <= answer.json()["archive"]["tar"].items()
            assert "secret folder" not in answer.text
        compared = await api.http.get(f"{RUNS}/diff", params={"a": "router_1", "b": "saw_1"})
        assert (compared.status_code, compared.json()["error"]) == (410, "RUN_ARCHIVED")
        items = {item["run_id"]: item for item in (await api.get()).json()["items"]}
        assert items["saw_1"]["archived"] is True
        assert "archived" not in items["router_1"]
        restore(root, tar)
        assert (await api.get("/saw_1")).content == shown

"""The pages about a run whose date is archived."""

from pathlib import Path

from tests.archive.archived import create, remove
from tests.evidence.proven_stores import proven_store
from tests.page.conftest import site_over


async def test_the_page_of_an_archived_run_says_so_and_offers_nothing_to_cut(
    tmp_path: Path,
) -> None:
    root = proven_store(tmp_path / "store")
    async with site_over(root) as site:
        remove(create(root, tmp_path / "old.tar"))
        page = await site.page("/run/saw_1", 410)
        assert page.one("h1").words == "This run is archived: do not cut"
        assert "rmos archive restore" in page.one(class_="problem").words
        assert "410 RUN_ARCHIVED" in page.words
        listed = (await site.page("/")).all("td", class_="at-why")
        assert [each.words for each in listed].count("archived") == 1
        await site.page("/compare?a=saw_1&b=router_1", 410)

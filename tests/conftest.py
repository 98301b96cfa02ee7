"""What holds for every test: nothing of the user's own is touched."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_configuration_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the keys of tests' ledgers in a folder of the session, also in its processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("configuration")))
        yield

"""A store with one of everything, made once and copied for each test."""

from pathlib import Path

import pytest

from tests.audit.audited import Template, make_audited


@pytest.fixture(scope="session")
def audited_template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    root = tmp_path_factory.mktemp("audited") / "store"
    make_audited(root)
    return Template(root)


@pytest.fixture
def store(audited_template: Template, tmp_path: Path) -> Path:
    """Return a store of its own with one of everything."""
    return audited_template.copy_to(tmp_path / "store")

"""A store with one of everything, for readers of every kind."""

from tests.audit.conftest import audited_template, store

__all__ = ["audited_template", "store"]

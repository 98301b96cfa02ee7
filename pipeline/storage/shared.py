"""A store that many hosts share: its contents in a bucket, its index in a database of PostgreSQL.

The row of the store in the database names the key that signs. So two hosts with two keys are found
before either of them writes.
"""

from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import asdict, replace
from functools import partial

from pipeline.bucket.files import BucketFiles
from pipeline.bucket.inspection import BucketInspection
from pipeline.bucket.log_store import BucketLogs
from pipeline.bucket.objects import Objects
from pipeline.bucket.probe import ask_bucket
from pipeline.bucket.url import BucketUrl, parse_bucket_url
from pipeline.bucket.versions import AuditedObjects
from pipeline.core.json.canonical import canonical_json
from pipeline.core.store.contents import StoreContents
from pipeline.core.store.identity import STORE_FILE, StoreIdentity, read_identity
from pipeline.core.store.log_store import LEDGER_FOLDER
from pipeline.disk.store_identity import check_identity, new_identity
from pipeline.errors import StoreNotReadyError
from pipeline.ledger.writer import Ledger
from pipeline.postgres.scripts import refuse_missing, run_scripts
from pipeline.postgres.store_row import (
    PostgresLock,
    change_row,
    key_in_force,
    make_row,
    refuse_taken,
    set_first_key,
)
from pipeline.settings import Settings
from pipeline.storage.index.postgres import (
    open_postgres_index,
    replacing_postgres_rows,
    store_row,
)
from pipeline.storage.index.replacement import Replacement
from pipeline.storage.ledger_key import (
    LedgerKey,
    init_key_of,
    key_file_of,
    open_ledger_of,
    verifier_keys,
)
from pipeline.storage.store import Store, with_index


def create_store(
    settings: Settings, *, cluster_id: str, store_id: str | None, epoch: int
) -> StoreIdentity:
    """Make a store: the bucket is asked for its promises, the database gets its tables and row.

    What fails on the way may be done again.

    Raises:
        InputError: `store_id` or `epoch` is not of its form.
        StoreNotReadyError: There is a store already; the bucket breaks a promise; the database is
            another store's.
        StoreAwayError: One of both does not answer.
    """
    url = _index_url(settings)
    identity = new_identity(
        cluster_id=cluster_id, prefix=settings.prefix, store_id=store_id, epoch=epoch
    )
    with closing(_objects(settings)) as objects:
        begun = _begun(objects)
        if begun is not None:
            check_identity(begun, objects.name, cluster_id=cluster_id, prefix=settings.prefix)
        elif failed := [each.question for each in ask_bucket(objects) if not each.holds]:
            raise StoreNotReadyError(
                f"The bucket {objects.name} cannot keep a store, as it fails: {', '.join(failed)}."
            )
        run_scripts(url)
        refuse_taken(url)
        if begun is None:
            _create(objects, identity)
        made = begun or identity
        make_row(url, store_row(made, None))
    return made


def _create(objects: Objects, identity: StoreIdentity) -> None:
    """Make a store below a prefix that has nothing."""
    with objects.faults():
        if found := [path for paths in objects.names("") for path in paths]:
            raise StoreNotReadyError(
                f"Expected {objects.name} to have nothing in it for a store, found {found[0]}."
            )
        content = canonical_json(asdict(identity))
        # Of two that make a store at the same time one was first.
        if objects.all([partial(objects.create, STORE_FILE, content)]) == [False]:
            raise StoreNotReadyError(f"There is a store at {objects.name} already.")


def _begun(objects: Objects) -> StoreIdentity | None:
    """Return the identity of a store that may have no row yet, as nothing was stored in it."""
    files = BucketFiles(objects)
    with objects.faults():
        if not files.present([STORE_FILE]):
            return None
        if files.has_folder(LEDGER_FOLDER):
            raise StoreNotReadyError(f"There is a store at {objects.name} already.")
    return read_identity(files)


def open_contents(settings: Settings, objects: Objects | None = None) -> StoreContents:
    """Open the files and the logs; `let_go` closes them.

    Raises:
        StoreNotReadyError: There is no store, or no such bucket, or it denies access.
        StoreAwayError: The bucket does not answer.
    """
    with ExitStack() as stack:
        objects = objects or _objects(settings)
        stack.callback(objects.close)
        files = BucketFiles(objects)
        identity, logs = read_identity(files), BucketLogs(objects, files)
        lock = PostgresLock(_index_url(settings))
        return StoreContents(identity, files, logs, lock, let_go=stack.pop_all().close)


def open_to_write(settings: Settings) -> tuple[Store, Ledger | None]:
    """Open the store for a worker, with its ledger.

    Raises:
        StoreNotReadyError: As `open_contents`; or there is no key, it is not the one in force, or
            the database cannot be used.
        StoreAwayError: The bucket or the database does not answer.
    """
    with ExitStack() as stack:
        contents = open_contents(settings)
        stack.callback(contents.let_go)
        if settings.ledger_enabled:
            _refuse_without_key(settings, contents)
        ledger = open_ledger_of(settings, contents)
        key = None if ledger is None else str(ledger.keys[0])
        store = _with_index(settings, contents, key)
        stack.pop_all()
    return store, ledger


def open_to_read(settings: Settings, objects: Objects | None = None) -> Store:
    """Open the store for reading, under the key that is in force.

    Raises:
        StoreNotReadyError: As `open_contents`; or the database cannot be used.
        StoreAwayError: The bucket or the database does not answer.
    """
    with ExitStack() as stack:
        contents = open_contents(settings, objects)
        stack.callback(contents.let_go)
        store = _with_index(settings, contents, key_in_force(_index_url(settings)))
        stack.pop_all()
    return store


def open_to_audit(settings: Settings) -> tuple[Store, BucketInspection]:
    """Open the store as `open_to_read` does, and what an audit asks about its files."""
    objects = AuditedObjects(_bucket_url(settings))
    return open_to_read(settings, objects), BucketInspection(objects)


def _with_index(settings: Settings, contents: StoreContents, key: str | None) -> Store:
    url = _index_url(settings)
    return with_index(contents, partial(open_postgres_index, url, contents.identity, key))


def replacing_rows(
    settings: Settings, contents: StoreContents
) -> AbstractContextManager[Replacement]:
    """Hold the lock of the store, and give what replaces all rows of its index.

    A database of nobody, which has tables alone, becomes that of the store: it was lost.

    Raises:
        StoreNotReadyError: The database cannot be used, or is another store's.
        StoreAwayError: It does not answer, or a batch takes too long.
    """
    url, identity = _index_url(settings), contents.identity
    refuse_missing(url)
    keys = verifier_keys(settings, identity, contents.files)
    key = key_in_force(url) or (str(keys[0]) if keys else None)
    make_row(url, store_row(identity, key))
    return replacing_postgres_rows(url, identity, key)


def init_key(settings: Settings) -> LedgerKey:
    """Make the key of the ledger where none is in force, else take the one of this host.

    Raises:
        StoreNotReadyError: There is no store, or another host has made the key that is in force.
        StoreError: The key cannot be written, or the bucket or the database does not answer.
    """
    url = _index_url(settings)
    with ExitStack() as stack:
        contents = open_contents(settings)
        stack.callback(contents.let_go)
        _refuse_without_key(settings, contents)
        made = init_key_of(settings, contents)
        set_first_key(url, store_row(contents.identity, str(made.key)))
    return made


def _refuse_without_key(settings: Settings, contents: StoreContents) -> None:
    """Refuse a host that has no key where the store has one."""
    path = key_file_of(settings, contents.identity)
    if not path.exists() and (in_force := contents.lock.key_in_force()) is not None:
        raise StoreNotReadyError(
            f"The store {contents.name} has the key {in_force}, made on another host: put a "
            f"copy of its file at {path}, or set RMOS_LEDGER_KEY_FILE to where it is."
        )


def begin_epoch(settings: Settings, *, cluster_id: str) -> StoreIdentity:
    """Go on with a new broker: the next epoch, of the cluster `cluster_id`.

    The database first: no host goes on in the old epoch from then on. Who dies before the bucket
    has it does the same again.

    Raises:
        StoreNotReadyError: There is no store, or another process changes its epoch too.
        StoreAwayError: The bucket or the database does not answer.
    """
    with closing(_objects(settings)) as objects, objects.faults():
        current = read_identity(BucketFiles(objects))
        following = replace(current, cluster_id=cluster_id, epoch=current.epoch + 1)
        before, after = (canonical_json(asdict(each)) for each in (current, following))
        (found,) = objects.all([partial(objects.get, STORE_FILE)])
        if found is None or found.content != before:
            raise _changed_meanwhile(objects)
        change_row(_index_url(settings), store_row(following, None))
        if objects.all([partial(objects.swap, STORE_FILE, after, found.version)]) == [None]:
            raise _changed_meanwhile(objects)
    return following


def _changed_meanwhile(objects: Objects) -> StoreNotReadyError:
    return StoreNotReadyError(
        f"Another process changes the epoch of the store {objects.name} too: rmos store status "
        "shows what it is."
    )


def _objects(settings: Settings) -> Objects:
    return Objects(_bucket_url(settings))


def _bucket_url(settings: Settings) -> BucketUrl:
    return parse_bucket_url(settings.store_url or "")


def _index_url(settings: Settings) -> str:
    return settings.index_url.get_secret_value() if settings.index_url is not None else ""

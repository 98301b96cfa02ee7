"""The proof of a run: its leaf in the log, under a checkpoint that the ledger's key signed."""

from dataclasses import dataclass

from pipeline.core.runs.outcome import StoredRun
from pipeline.disk.store_identity import read_store
from pipeline.errors import IntegrityError, RmosError, StoreNotReadyError
from pipeline.ledger.reader import StoreLogs, find_run_leaf
from pipeline.settings import Settings
from pipeline.storage.ledger_key import verifier_keys


@dataclass(frozen=True, slots=True)
class RunProof:
    """Where the log recorded a run.

    Attributes:
        log: Its path, as `rmos ledger` names it.
        index: Of the leaf, from 0.
        size: Of the checkpoint, in leaves.
        note: The checkpoint itself, signed.
    """

    log: str
    index: int
    size: int
    note: str


def proof_of(settings: Settings, run: StoredRun) -> RunProof | str:
    """Return the proof of a run, checked against the signed root; or why there is none."""
    root = settings.data_dir
    try:
        keys = verifier_keys(settings, read_store(root))
        found = find_run_leaf(StoreLogs(root, keys), run)
        proof = found.reader.prove(found.index)
    except StoreNotReadyError:
        # Its text names a path of the server.
        return "This server does not have the public key of the ledger, so it checked no signature."
    except IntegrityError as error:
        return str(error)
    except RmosError:
        return "The ledger cannot be read now; the log of the server says why."
    return RunProof(
        found.reader.log.path, proof.index, found.reader.size, proof.checkpoint.decode()
    )

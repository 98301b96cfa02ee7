"""Whether a machine may cut exactly these bytes: the verdict of a program by its hash.

1. A run that withholds the bytes, or is not OK and has them as an attachment, refuses them,
   whatever other runs say.
2. The newest run that a machine may cut by, and whose program they are, releases them, if its
   artifact is whole and says the same as the index.
3. Where their only runs are history of an older store, or explained by no record, they are refused.
4. Where they are only an attachment of a run, and not its program, they are refused.
5. Else no run knows them.
"""

from dataclasses import dataclass

from pipeline.core.runs.outcome import StoredRun
from pipeline.core.runs.words import words_of_run
from pipeline.errors import ArchivedError, IntegrityError
from pipeline.storage.artifacts import read_artifact, recorded_document
from pipeline.storage.reader import RunReader


@dataclass(frozen=True, slots=True)
class ProgramVerdict:
    """The verdict of a program.

    Attributes:
        sha256: Of its bytes.
        may_cut: Whether a machine may cut exactly these bytes.
        run_id: The run that decided; None where no run knows them.
        words: `MAY CUT: ` or `DO NOT CUT: `, and why: one sentence.
    """

    sha256: str
    may_cut: bool
    run_id: str | None
    words: str

    @property
    def is_known(self) -> bool:
        """Whether any run knows these bytes."""
        return self.run_id is not None


def program_verdict(reader: RunReader, sha256: str) -> ProgramVerdict:
    """Return whether a machine may cut the bytes with this SHA-256, and by which run.

    Raises:
        StoreError: The disk or the index failed.
    """
    found = reader.runs_of_program(sha256)
    if found.refusing is not None:  # 1.
        run = found.refusing
        return ProgramVerdict(sha256, False, run.run_id, _refusal(run))
    if found.cutting is not None:  # 2. and 3.
        run = found.cutting
        doubt = _doubt(reader, run) if run.may_cut else _refusal(run)
        return ProgramVerdict(sha256, doubt is None, run.run_id, doubt or _release(run))
    if found.attaching is not None:  # 4.
        run_id, kind = found.attaching
        words = (
            f"DO NOT CUT: these bytes are an attachment of kind {kind} of the run {run_id}, and "
            "not the program that it cuts."
        )
        return ProgramVerdict(sha256, False, run_id, words)
    return ProgramVerdict(sha256, False, None, "DO NOT CUT: no run knows these bytes.")  # 5.


def refused_by(reader: RunReader, run: StoredRun) -> str | None:
    """Return another run that refuses the program of a run; None where none does."""
    if run.program is None:
        return None
    refusing = reader.runs_of_program(run.program.sha256).refusing
    return None if refusing is None or refusing.run_id == run.run_id else refusing.run_id


def _release(run: StoredRun) -> str:
    words = words_of_run(run)
    return f"{words}: these bytes are the program of the run {run.run_id} ({run.risk_level})."


def _refusal(run: StoredRun) -> str:
    if run.source is None:
        return f"DO NOT CUT: no leaf and no record explains the run {run.run_id}."
    return f"{words_of_run(run)} (the run {run.run_id} is {run.status})."


def _doubt(reader: RunReader, run: StoredRun) -> str | None:
    """Return what is wrong with the artifact of a run that would release its program."""
    try:
        recorded_document(run, read_artifact(reader.store, run))
    except ArchivedError:
        return (
            f"DO NOT CUT: the run {run.run_id} is archived, so its artifact cannot be checked "
            "here: rmos archive restore puts it back."
        )
    except IntegrityError as error:
        return f"DO NOT CUT: the run {run.run_id} is not what was stored ({error})"
    return None

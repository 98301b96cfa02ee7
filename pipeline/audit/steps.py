"""The steps of an audit, the processes that run them, and the parts that they make up.

Values alone go from process to process; a connection is opened where it is used. Results come back
in the order of the steps. The number of steps under way is bounded, so a store of any size needs
the same memory. While the child processes have enough to do, or still start, steps run here.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, Self

from pipeline.audit import queries
from pipeline.audit.audited_store import AuditedStore, RowReader
from pipeline.audit.plan import open_plan, plan_faults
from pipeline.audit.rules.finding import MISSING_BLOB, Finding
from pipeline.audit.rules.parts import Extent
from pipeline.audit.rules.request import is_sampled
from pipeline.consumers.engine.child_process import child_pool, init_child, submitted
from pipeline.disk.sqlite.scratch import ScratchDatabase
from schemas.audit_finding import AuditCode

Depth = Literal["names", "bytes", "content"]
"""How closely a file is checked: its name, size and mode; its bytes, hashed; their content."""


@dataclass(frozen=True, slots=True)
class AuditContext:
    """What an audit is about.

    Attributes:
        opened: Opens the store, in any process.
        plan: File of the plan.
        audit_id: Seeds the sample.
        depth: Of files that are read.
        share: Of files that are read; the others are checked by name. 1 for all, 0 for none.
        extent: What is looked at.
    """

    opened: Callable[[], AuditedStore]
    plan: str
    audit_id: str
    depth: Depth
    share: float
    extent: Extent

    def depth_of(self, path: str) -> Depth:
        """Return how closely the file at `path` is checked."""
        if self.share >= 1 or (self.share > 0 and is_sampled(self.audit_id, path, self.share)):
            return self.depth
        return "names"

    @property
    def is_whole(self) -> bool:
        """Whether all blobs are checked, here or by another part; else those that files name."""
        return self.extent.scope.all is not None

    @property
    def follows_names(self) -> bool:
        """Whether every artifact is read, so that the blobs which they name are known from them.

        Otherwise the rows of the index name the blobs that must exist.
        """
        return self.depth == "content" and self.share >= 1


class AuditReader:
    """The connections of one process, opened when they are first used: the plan is filled first."""

    def __init__(self, context: AuditContext, store: AuditedStore | None = None) -> None:
        self.context = context
        self._open = ExitStack()
        if store is not None:
            self.store = store

    def close(self) -> None:
        """Close them."""
        self._open.close()

    @cached_property
    def store(self) -> AuditedStore:
        """The store."""
        opened = self.context.opened()
        self._open.callback(opened.let_go)
        return opened

    @cached_property
    def plan(self) -> ScratchDatabase:
        """The plan, which is resolved."""
        return self._open.enter_context(closing(open_plan(Path(self.context.plan))))

    @cached_property
    def index(self) -> RowReader | None:
        """The index, where artifacts are read that its rows are compared with."""
        if self.context.depth != "content" or not self.context.share:
            return None
        if self.plan.execute(queries.HAS_RUN_ROWS).fetchone() is None:
            return None
        return self._open.enter_context(closing(self.store.index.reader()))


@dataclass(frozen=True, slots=True)
class Step:
    """A piece of work that any process of an audit can do alone.

    Attributes:
        part: The part to which it belongs.
        function: Of a module; takes the reader of its process, then the arguments.
        arguments: Plain values.
    """

    part: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


@dataclass(slots=True)
class StepResult:
    """What one step found.

    Attributes:
        findings: In the order of the paths.
        counts: How many of what were checked.
        suspects: Paths that nothing explains, as far as the step knows.
        store_root: Over the lines of all files, by the step that computes it.
    """

    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    suspects: list[str] = field(default_factory=list)
    store_root: str | None = None

    def add(self, *findings: Finding) -> None:
        """Add findings."""
        self.findings += findings

    def take(self, other: "StepResult") -> None:
        """Add what a part of the step found."""
        if other.findings or other.suspects:
            self.findings += other.findings
            self.suspects += other.suspects
        counts = self.counts
        for name, number in other.counts.items():
            counts[name] = counts.get(name, 0) + number

    def count(self, name: str, number: int = 1) -> None:
        """Count something that was checked."""
        self.counts[name] = self.counts.get(name, 0) + number


_AHEAD = 3
"""Steps on their way for each process: one at work, one waiting, one on its way back."""

MANY_WAITING: Final = 64
"""Small results that wait for a long step before them: about two seconds of other steps."""

_reader: AuditReader | None = None


class StepPool:
    """Runs steps, here and in processes of their own.

    Attributes:
        context: What the steps are about.
    """

    def __init__(
        self, processes: int, context: AuditContext, store: AuditedStore | None = None
    ) -> None:
        """Start the processes, as children of this thread, and do not wait for them.

        Args:
            processes: How many beside this one; 0 to run every step here.
            context: What the steps are about.
            store: The store, open for the steps that run here.

        Raises:
            ExecutorError: No process can be started.
        """
        self.context = context
        self._processes = processes
        self._own = AuditReader(context, store)
        self._pool: ProcessPoolExecutor | None = None
        self._ready: list[Future[None]] = []
        if processes:
            self._pool = child_pool(processes, _begin, (context,))
            with _memory_faults():
                self._ready = [submitted(self._pool, _be_ready) for _ in range(processes)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._own.close()

    def run(self, steps: Iterable[Step], waiting_limit: int = 0) -> Iterator[tuple[Step, Any]]:
        """Yield each of `steps` with what it returns, in their order.

        Args:
            steps: What to do.
            waiting_limit: Most steps under way, with those that wait for one before them; at least
                as many as keep all processes at work.

        Raises:
            MemoryError: A process was killed, as the kernel does where memory is short.
        """
        if self._pool is None:
            for step in steps:
                yield step, step.function(self._own, *step.arguments)
            return
        limit = max(waiting_limit, (self._processes + 1) * _AHEAD)
        waiting: deque[tuple[Step, Future[Any]]] = deque()
        try:
            with _memory_faults():
                for step in steps:
                    waiting.append((step, self._started(step, waiting)))
                    while waiting and (waiting[0][1].done() or len(waiting) >= limit):
                        yield _next(waiting)
                while waiting:
                    yield _next(waiting)
        finally:
            for _, future in waiting:
                future.cancel()

    def _started(self, step: Step, waiting: Iterable[tuple[Step, Future[Any]]]) -> Future[Any]:
        """Give a step to a child process that is ready and has not enough to do; else run it here.

        What a process has to do while it starts would hold up all that is done here meanwhile.
        """
        assert self._pool is not None
        ready = sum(future.done() for future in self._ready)
        if sum(not future.done() for _, future in waiting) < ready * _AHEAD:
            return self._pool.submit(_run, step.function, *step.arguments)
        own: Future[Any] = Future()
        try:
            own.set_result(step.function(self._own, *step.arguments))
        except Exception as error:  # noqa: BLE001  # raised in the order of the steps
            own.set_exception(error)
        return own


@contextmanager
def _memory_faults() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise MemoryError(
            "A process of the audit was killed, most likely for want of memory; give it more, or "
            "set RMOS_AUDIT_PROCESSES=0, then start the audit again: it resumes after the last "
            "whole day."
        ) from error


def _next(waiting: deque[tuple[Step, Future[Any]]]) -> tuple[Step, Any]:
    step, future = waiting.popleft()
    return step, future.result()


def _begin(context: AuditContext) -> None:
    global _reader  # noqa: PLW0603  # one a process, for all of its steps
    init_child()
    _reader = AuditReader(context)


def _be_ready() -> None:
    """Do nothing: a process that does it has started. The first may do it for all."""


def _run(function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
    assert _reader is not None
    # Here as where its result is taken: an error of a client cannot be pickled.
    with _reader.store.faults(), plan_faults():
        return function(_reader, *arguments)


LEDGER_PART: Final = "ledger"
PLACES_PART: Final = "places"


@dataclass(slots=True)
class Tally:
    """Of one part, or of several: they add up.

    Attributes:
        counts: By the names in `AuditCounts`.
        codes: Findings of each code.
    """

    counts: Counter[str] = field(default_factory=Counter)
    codes: Counter[AuditCode] = field(default_factory=Counter)

    def add(self, other: "Tally") -> None:
        """Add what another part has."""
        self.counts.update(other.counts)
        self.codes.update(other.codes)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Return the tally that the line of a part keeps."""
        return cls(Counter(document["counts"]), Counter(document["codes"]))

    def document(self, files: int) -> dict[str, Any]:
        """Return it as the line of a part keeps it; `files` is how many files the audit has."""
        return {"counts": dict(self.counts), "codes": dict(self.codes), "files": files}

    def note(self, code: AuditCode) -> None:
        """Count a finding."""
        self.codes[code] += 1
        self.counts["findings"] += 1


@dataclass(frozen=True, slots=True)
class PartDone:
    """A part that is done as a whole; an audit that resumes does not repeat it."""

    name: str
    tally: Tally


class Parts:
    """Takes results in the order of the parts; yields new findings, and the end of each part.

    Attributes:
        files: How many files of runs were checked so far.
    """

    def __init__(self, skip: Collection[str], known_missing: Collection[str] = ()) -> None:
        """Begin; findings in a part of `skip` were published before, and so were these blobs."""
        self.files = 0
        self._skip = skip
        self._part: str | None = None
        self._tally = Tally()
        self._known_missing = set(known_missing)

    def add(self, part: str, result: StepResult) -> Iterator[Finding | PartDone]:
        """Yield what a step found, after the end of the part before if it begins one."""
        if part != self._part:
            yield from self.end()
            self._part = part
        if part in self._skip:
            return
        self._tally.counts.update(result.counts)
        self.files += result.counts.get("artifacts", 0) + result.counts.get("links", 0)
        for finding in result.findings:
            if self._is_news(finding):
                self._tally.note(finding.code)
                yield finding

    def end(self) -> Iterator[PartDone]:
        """Yield that the part is done, once nothing more comes of it."""
        if self._part is not None and self._part not in self._skip:
            yield PartDone(self._part, self._tally)
        self._part, self._tally = None, Tally()

    def _is_news(self, finding: Finding) -> bool:
        """Return whether a missing blob was not reported before: several files may name it."""
        if finding.code not in MISSING_BLOB:
            return True
        known = finding.path in self._known_missing
        self._known_missing.add(finding.path)
        return not known

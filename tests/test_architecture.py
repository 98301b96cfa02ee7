"""The arrows between the rooms point one way, read from the imports of every file.

    schemas <- core <- disk <- ledger <- storage;   core <- broker, bucket, postgres <- storage
    storage, broker <- consumers <- audit, legacy <- recovery, api <- page <- app <- cli
    evidence and archive stand beside consumers

A test lists every offender, so that one run shows all that is to be moved.
"""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent

LEAVES = {"pipeline.errors", "pipeline.topics", "pipeline.settings", "pipeline.metrics"}
"""Modules at the root that any room but core may import whole."""

_STORE = {"schemas", "core", "disk", "ledger", "storage"} | LEAVES
_WORKERS = _STORE | {"broker", "consumers"}

MAY_IMPORT: dict[str, set[str]] = {
    "schemas": set(),
    "core": {"schemas", "pipeline.errors", "pipeline.topics"},
    "disk": {"schemas", "core"} | LEAVES,
    "bucket": {"schemas", "core"} | LEAVES,
    "ledger": {"schemas", "core", "disk"} | LEAVES,
    "postgres": {"schemas", "core"} | LEAVES,
    "storage": _STORE | {"bucket", "postgres"},
    "broker": {"schemas", "core"} | LEAVES,
    "consumers": _WORKERS,
    "evidence": _STORE,
    "archive": _STORE,
    "audit": _WORKERS,
    "legacy": _WORKERS,
    "recovery": _WORKERS | {"legacy"},
    "api": _WORKERS | {"evidence", "legacy"},
    "page": _WORKERS | {"audit", "evidence", "legacy", "api"},
    "app": _WORKERS | {"audit", "legacy", "recovery", "api", "page", "pipeline.logs"},
}
"""What each room may import beside itself; the command line may import all."""

LEAVES_MAY_NOT_IMPORT = {
    "pipeline.errors": {"schemas", "pipeline", *MAY_IMPORT},
    "pipeline.topics": {"schemas", "pipeline", *MAY_IMPORT},
    "pipeline.metrics": {"schemas", "pipeline", *MAY_IMPORT},
    "pipeline.settings": {*MAY_IMPORT},
    "pipeline.logs": {*MAY_IMPORT} - {"core"},
    "pipeline.client": {*MAY_IMPORT} - {"schemas", "core"},
    "pipeline.store": {*MAY_IMPORT} - {"schemas", "core", "disk", "storage"},
    "pipeline.__main__": {"api", "app"},
}

PURE = (
    *("schemas", "pipeline.core", "pipeline.ledger.tlog", "pipeline.ledger.leaf"),
    *("pipeline.audit.rules", "pipeline.evidence.evidence", "pipeline.evidence.words"),
)
"""Rooms and modules that touch no disk, network, clock, environment, thread or random number."""

WRITES_FILES = {"schemas.export": {"pathlib"}}
"""What is pure but for this: the frozen schemas, written for the command that exports them."""

PURE_STANDARD_LIBRARY = {
    *("__future__", "base64", "binascii", "bisect", "collections", "contextlib", "dataclasses"),
    *("datetime", "decimal", "enum", "functools", "hashlib", "hmac", "html", "ipaddress"),
    *("itertools", "json", "math", "operator", "re", "string", "struct", "textwrap", "types"),
    *("typing", "unicodedata"),
}
PURE_LIBRARIES = {
    *("cryptography", "jinja2", "markupsafe", "msgspec", "orjson", "pydantic", "pydantic_core"),
}
IMPURE_NAMES = {"open", "print", "input", "now", "utcnow", "today", "getenv"}

BASE_LIBRARIES = {"aiokafka", "pydantic", "pydantic_core", "pydantic_settings"}
BASE_INSTALL = (
    *("pipeline", "pipeline.broker.publisher", "pipeline.broker.connection"),
    *("pipeline.settings", "pipeline.topics", "pipeline.errors"),
)

ASKS_OF_THE_PROCESS = {
    *("environ", "pathsep", "getpid", "getppid", "geteuid", "kill", "_exit", "sched_getaffinity"),
    *("urandom", "strerror", "fsencode", "fsdecode", "path.abspath", "path.lexists"),
}
"""Names of `os` for every module: none of them opens, reads, lists or changes a file.

`path.lexists` asks as `Path.exists` does, which follows a link, and raises where we may not look.
"""

DISK_MODULES = {"fcntl", "sqlite3", "aiofiles.os", "ctypes", "mmap", "posix"}
"""What is imported for files and locks by their descriptors, and for a database in a file."""

BESIDE_THE_STORE = {
    "pipeline.broker.local": "the local broker has a folder of its own",
    "pipeline.consumers.engine.child_process": "a file in memory hands requests to the child",
    "pipeline.client": "it sends files of its caller, and writes them",
    "pipeline.legacy.v1.file": "the v1 store is one file, which is replaced as a whole",
}
"""Who knows files by their descriptors beside `disk`, and why."""

METHODS_OF_FILES = {
    *("chmod", "glob", "hardlink_to", "iterdir", "lchmod", "lstat", "mkdir", "read_bytes"),
    *("read_text", "readlink", "rename", "rglob", "rmdir", "samefile", "stat", "symlink_to"),
    *("touch", "unlink", "write_bytes", "write_text"),
}
"""What only a `Path` has and opens, reads, lists or changes files.

Not `exists` and its like, which answer yes or no; nor `open`, `replace` and `resolve`, which other
objects have too.
"""

BESIDE_THE_STORE_BY_PATH = {
    "pipeline.cli": "files that its caller names",
    "pipeline.api.http.tokens": "the file of tokens is the operator's",
    "pipeline.app.machine": "the doctor looks at the clock and the volume of one host",
    "pipeline.broker.connection": "the file of the password is the operator's",
    "pipeline.broker.local": "as above",
    "pipeline.client": "as above",
    "pipeline.evidence": "a bundle lies where its caller wants it",
    "pipeline.ledger.keys": "keys lie outside of the store",
    "pipeline.ledger.witnessed": "checkpoints to trust come from elsewhere",
    "pipeline.legacy": "the v1 store, its blobs and its backups",
    "pipeline.page.assets": "files of this package",
    "pipeline.page.rendering": "files of this package",
    "pipeline.postgres.scripts": "files of this package",
    "schemas.export": "the frozen schemas",
}
"""Who reads or writes files by their paths beside `disk`, and why."""

RUNS_COMMANDS = {"cli", "pipeline.__main__"}
PRINTS = {"pipeline.cli", "pipeline.cli.views.terminal", "pipeline.cli.demo.runs"}
"""The module by which commands print, the screen of the demo, and what needs no library at all."""

KNOWN_PRIVATE_NAMES = ["pipeline.consumers.engine.subscription: super()._connect"]
"""What a subclass of a broker of FastStream overrides; no other room may import FastStream."""

MOST_MODULES = 410
"""In both packages, `__init__.py` files included."""

MOST_MODULES_OF_A_FOLDER = 26
MOST_LINES = 400
MOST_LOOSE_MODULES = 8


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_of(path): path
    for package in ("schemas", "pipeline")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def is_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those that only a type checker runs."""
    for child in ast.iter_child_nodes(tree):
        if not is_typing_only(child):
            yield child
            yield from nodes(child)


def is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


@cache
def imports_of(module: str) -> set[str]:
    """Full names of what `module` imports, also inside functions."""
    found: set[str] = set()
    for node in nodes(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by a relative name"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in names}
    return found


def room_of(module: str) -> str:
    """The room that a module of ours belongs to: `core`, or its own name at the root."""
    names = module.split(".")
    if names[0] == "schemas":
        return "schemas"
    if len(names) > 1 and (ROOT / "pipeline" / names[1]).is_dir():
        return names[1]
    return ".".join(names[:2])


def is_in(module: str, rooms: tuple[str, ...]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] in {"schemas", "pipeline"}}


def foreign(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names - ours(names)}


def rooms_imported_by(module: str) -> set[str]:
    return {room_of(name) for name in ours(imports_of(module))} - {room_of(module), "pipeline"}


def test_there_are_modules_to_look_at() -> None:
    assert {"schemas.fields", "pipeline.core.runs.verdict", "pipeline.errors"} <= MODULES.keys()
    assert "pipeline.core.json.canonical" in imports_of("pipeline.core.json.strict")
    assert room_of("pipeline.core.runs.verdict") == "core"
    assert room_of("pipeline.errors") == "pipeline.errors"
    for room in PURE:
        assert any(is_in(module, (room,)) for module in MODULES), room


def test_each_room_imports_only_what_lies_before_it() -> None:
    offenders = {
        module: forbidden
        for module in MODULES
        if room_of(module) in MAY_IMPORT
        and (forbidden := rooms_imported_by(module) - MAY_IMPORT[room_of(module)])
    }
    assert offenders == {}


def test_every_room_has_its_place() -> None:
    rooms = {room_of(module) for module in MODULES}
    loose = {room for room in rooms if room.startswith("pipeline.")}
    assert rooms - loose - {"pipeline"} <= MAY_IMPORT.keys() | {"cli"}
    assert loose <= LEAVES_MAY_NOT_IMPORT.keys()


def test_modules_at_the_root_import_nothing_that_builds_on_them() -> None:
    offenders = {
        module: forbidden
        for module, not_allowed in LEAVES_MAY_NOT_IMPORT.items()
        if (forbidden := rooms_imported_by(module) & not_allowed)
    }
    assert offenders == {}


def test_nothing_imports_the_command_line() -> None:
    offenders = [
        module
        for module in MODULES
        if room_of(module) not in RUNS_COMMANDS and "cli" in rooms_imported_by(module)
    ]
    assert offenders == []


def test_pure_rooms_touch_nothing_outside_themselves() -> None:
    pure = [module for module in MODULES if is_in(module, PURE)]
    allowed = PURE_STANDARD_LIBRARY | PURE_LIBRARIES
    imported = {
        module: libraries
        for module in pure
        if (libraries := foreign(imports_of(module)) - allowed - WRITES_FILES.get(module, set()))
    }
    assert imported == {}
    assert {module: found for module in pure if (found := impure_calls(module))} == {}


def impure_calls(module: str) -> set[str]:
    """What a module calls that asks for a time or a file; `async` where it waits."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Call):
            called = node.func
            found.add(
                called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            )
        elif isinstance(node, ast.AsyncFunctionDef):
            found.add("async")
    return found & (IMPURE_NAMES | {"async"})


def test_pure_rooms_import_pure_rooms_alone() -> None:
    offenders = {
        module: impure
        for module in MODULES
        if is_in(module, PURE)
        and (
            impure := {
                name
                for name in ours(imports_of(module))
                if not is_in(name, (*PURE, "pipeline.errors", "pipeline.topics"))
                and name not in {"pipeline.ledger", "pipeline.ledger.log_id"}
            }
        )
    }
    assert offenders == {}


def of_the_disk(module: str) -> set[str]:
    """What `module` uses that only `disk` may: names of `os` in full, and modules."""
    found = set()
    for node in nodes(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Attribute):
            found.add(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    names = {name.removeprefix("os.") for name in found if re.match(r"os(\.path)?\.\w+$", name)}
    return names - ASKS_OF_THE_PROCESS - {"path"} | imports_of(module) & DISK_MODULES


def test_only_the_disk_knows_descriptors_locks_and_database_files() -> None:
    used = {
        module: found
        for module in MODULES
        if room_of(module) != "disk" and (found := of_the_disk(module))
    }
    beside = tuple(BESIDE_THE_STORE)
    assert {module: found for module, found in used.items() if not is_in(module, beside)} == {}
    needless = [each for each in beside if not any(is_in(one, (each,)) for one in used)]
    assert needless == []


def test_only_the_disk_reads_lists_or_changes_files_of_a_store_by_path() -> None:
    used = {
        module: found
        for module, path in MODULES.items()
        if room_of(module) != "disk"
        and (
            found := {
                node.attr
                for node in nodes(ast.parse(path.read_text()))
                if isinstance(node, ast.Attribute) and node.attr in METHODS_OF_FILES
            }
        )
    }
    beside = tuple(BESIDE_THE_STORE_BY_PATH)
    assert {module: found for module, found in used.items() if not is_in(module, beside)} == {}
    needless = [each for each in beside if not any(is_in(one, (each,)) for one in used)]
    assert needless == []


def test_the_name_of_a_store_is_no_path() -> None:
    parsed = {
        module
        for module, path in MODULES.items()
        if re.search(r"\bPath\(([\w.]+\.)?store\.name\)", path.read_text())
    }
    assert parsed == set()


def test_one_engine_and_the_applications_know_the_framework() -> None:
    knowing = {
        module
        for module in MODULES
        for name in imports_of(module)
        if name.split(".")[0] == "faststream"
    }
    assert {
        module
        for module in knowing
        if not is_in(module, ("pipeline.consumers.engine", "pipeline.app"))
    } == set()
    assert knowing


def test_a_store_on_one_disk_needs_no_driver_of_a_server() -> None:
    drivers = {
        room_of(module)
        for module in MODULES
        if foreign(imports_of(module)) & {"psycopg", "psycopg_pool"}
    }
    users = {
        module
        for module in MODULES
        if room_of(module) != "postgres" and "postgres" in rooms_imported_by(module)
    }
    assert drivers == {"postgres"}
    # The command upgrades it, and imports it when it runs.
    opened = "pipeline.storage.index.postgres"
    shared = "pipeline.storage.shared"
    assert users == {opened, shared, "pipeline.cli.store"}
    # Nothing imports these but where the settings name such a store, inside a function.
    assert {m for m in MODULES if opened in imports_of(m)} == {shared}
    assert {m for m in MODULES if shared in imports_of(m)} == {"pipeline.storage.contents"}
    at_the_top = ast.parse(MODULES["pipeline.storage.contents"].read_text()).body
    assert not any("shared" in ast.unparse(each) for each in at_the_top if is_import(each))


def test_schemas_need_pydantic_alone() -> None:
    offenders = {
        module: libraries
        for module in MODULES
        if room_of(module) == "schemas"
        and (
            libraries := foreign(imports_of(module))
            - set(sys.stdlib_module_names)
            - {"pydantic", "pydantic_core"}
        )
    }
    assert offenders == {}


def test_what_a_bundle_brings_along_needs_the_standard_library_alone() -> None:
    imported = imports_of("pipeline.evidence.verifier.verify")
    assert imported <= set(sys.stdlib_module_names) | {"collections.abc"}, imported


def everything_under(module: str) -> set[str]:
    """`module` and all modules of ours that importing it imports, packages included."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in MODULES:
            continue
        seen.add(name)
        waiting += [*ours(imports_of(name)), name.rpartition(".")[0]]
    return seen


def test_what_a_producer_installs_needs_the_base_libraries_alone() -> None:
    schemas = [module for module in MODULES if room_of(module) == "schemas"]
    offenders = {
        name: libraries
        for module in (*BASE_INSTALL, *schemas)
        for name in everything_under(module)
        if (libraries := foreign(imports_of(name)) - set(sys.stdlib_module_names) - BASE_LIBRARIES)
    }
    assert offenders == {}


def test_what_others_wrote_is_printed_by_one_module_that_makes_it_visible() -> None:
    prints = re.compile(r"\bprint\(|\becho\(|console\.print\(|sys\.stdout|sys\.stderr\.write")
    offenders = {
        module: found
        for module, path in MODULES.items()
        if module.startswith("pipeline")
        and module not in PRINTS
        # It goes to auditors, who have nothing of ours.
        and not is_in(module, ("pipeline.evidence.verifier",))
        and (found := prints.findall(path.read_text()))
    }
    assert offenders == {}


def test_the_house_stays_small_enough_to_know() -> None:
    assert len(MODULES) <= MOST_MODULES


def test_rooms_stay_small_enough_to_look_around_in() -> None:
    folders: dict[Path, int] = {}
    for path in MODULES.values():
        folders[path.parent] = folders.get(path.parent, 0) + 1
    crowded = {
        str(each): number for each, number in folders.items() if number > MOST_MODULES_OF_A_FOLDER
    }
    long = {
        module: lines
        for module, path in MODULES.items()
        if (lines := len(path.read_text().splitlines())) > MOST_LINES
        # One file that an auditor reads from top to bottom.
        and module != "pipeline.evidence.verifier.verify"
    }
    loose = [path.name for path in (ROOT / "pipeline").glob("*.py") if path.name != "__init__.py"]
    assert (crowded, long) == ({}, {})
    assert len(loose) <= MOST_LOOSE_MODULES, loose


THEIR_STREAMS = {"aiter_bytes", "stream"}
"""Methods of libraries that close what they stream by a context of their own."""


def closed_names(function: ast.AsyncFunctionDef) -> set[str]:
    """The names in `function` that `aclosing` closes."""
    named: set[str] = set()
    for item in (item for each in ast.walk(function) for item in getattr(each, "items", [])):
        call = item.context_expr if isinstance(item, ast.withitem) else None
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "aclosing":
            named.add(ast.unparse(item.optional_vars or call.args[0]))
    return named


def loops_left_open(tree: ast.AST) -> Iterator[str]:
    """What `async for` goes through in `tree` although nobody closes it where it is left early."""
    functions = [each for each in ast.walk(tree) if isinstance(each, ast.AsyncFunctionDef)]
    for function in functions:
        # The caller closes what it passes in.
        arguments = {argument.arg for argument in function.args.args}
        known = closed_names(function) | arguments
        for loop in (each for each in ast.walk(function) if isinstance(each, ast.AsyncFor)):
            called = getattr(getattr(loop.iter, "func", None), "attr", "")
            if ast.unparse(loop.iter) not in known and called not in THEIR_STREAMS:
                yield f"{function.name}: {ast.unparse(loop.iter)}"


def test_no_asynchronous_generator_is_left_to_the_garbage_collector() -> None:
    # One that holds a consumer would close it in a task of its own, whose error nobody takes.
    offenders = {
        module: left
        for module, path in MODULES.items()
        if room_of(module) != "schemas"
        and (left := list(loops_left_open(ast.parse(path.read_text()))))
    }
    assert offenders == {}


def test_a_loop_over_a_call_is_found() -> None:
    left = "async def f(x):\n async for a in g(): pass"
    closed = "async def f(x):\n async with aclosing(g()) as b:\n  async for a in b: pass"
    assert list(loops_left_open(ast.parse(left))) == ["f: g()"]
    assert list(loops_left_open(ast.parse(closed))) == []


def test_only_the_composition_root_imports_v1_mode() -> None:
    importers = {
        room_of(module)
        for module in MODULES
        for name in imports_of(module)
        if is_in(name, ("pipeline.legacy.v1_mode",))
        and not is_in(module, ("pipeline.legacy.v1_mode",))
    }
    assert importers == {"app"}


def test_private_names_of_libraries_are_known_where_their_fixes_are() -> None:
    found = []
    for module, path in MODULES.items():
        libraries = {name.split(".")[0] for name in imports_of(module)} & {"aiokafka", "faststream"}
        if not libraries or is_in(module, ("pipeline.broker.aiokafka_fixes",)):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                found.append(f"{module}: {ast.unparse(node)}")
            elif isinstance(node, ast.ImportFrom) and libraries & {str(node.module).split(".")[0]}:
                found += [f"{module}: {each.name}" for each in node.names if is_private(each.name)]
    foreign_names = [each for each in found if not re.search(r": (self|cls)\._\w+$", each)]
    assert foreign_names == KNOWN_PRIVATE_NAMES


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")

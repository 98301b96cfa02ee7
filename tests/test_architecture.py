"""The arrows between the parts point one way, read from the imports of every file.

schemas <- core <- storage, broker <- consumers, api <- app <- cli
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHARED = {
    "pipeline.errors",
    "pipeline.topics",
    "pipeline.settings",
    "pipeline.metrics",
    "pipeline.child_process",
}
"""Leaves at the root that any part may import, but core not all of them."""

MAY_IMPORT = {
    "schemas": set(),
    # It goes to auditors, who have nothing of ours.
    "evidence_bundle": set(),
    "core": {"schemas", "pipeline.errors", "pipeline.topics"},
    "storage": {"schemas", "core"} | SHARED,
    "broker": {"schemas", "core"} | SHARED,
    "consumers": {"schemas", "core", "storage", "broker"} | SHARED,
    "api": {"schemas", "core", "storage", "broker"} | SHARED,
    "replay": {"schemas", "core", "storage", "broker", "consumers"}
    | {"pipeline.storage.ledger_key"}
    | SHARED,
}
"""What each part may import beside itself."""

MAY_NOT_IMPORT = {
    "pipeline.errors": {"schemas", "pipeline"},
    "pipeline.topics": {"schemas", "pipeline"},
    "pipeline.metrics": {"schemas", "pipeline"},
    "pipeline.child_process": {"schemas", "pipeline"},
    "pipeline.settings": {"schemas", "core", "storage", "broker", "consumers", "api"},
    "pipeline.logs": {"storage", "broker", "consumers", "api"},
    "pipeline.__main__": {"api", "app"},
    "pipeline.client": {"storage", "broker", "consumers", "api", "cli", "app"},
}
WHOLE_PROGRAMS_MAY_NOT_IMPORT = {"api", "cli", "app"}
"""For every other module at the root: replay, migration and their like use the parts."""

PURE_STANDARD_LIBRARY = {
    *("__future__", "base64", "binascii", "bisect", "collections", "dataclasses", "datetime"),
    *("decimal", "enum", "functools", "hashlib", "hmac", "html", "ipaddress", "itertools", "json"),
    *("math", "operator", "re", "string", "struct", "textwrap", "types", "typing", "unicodedata"),
}
"""Modules that touch no disk, network, clock, environment, thread or random number."""

PURE_LIBRARIES = {"msgspec", "orjson", "pydantic", "pydantic_core", "cryptography"}
IMPURE_NAMES = {"open", "print", "input", "now", "utcnow", "today", "getenv"}
BASE_LIBRARIES = {"aiokafka", "pydantic", "pydantic_core", "pydantic_settings"}
BASE_INSTALL = [
    "pipeline.broker.publisher",
    "pipeline.broker.connection",
    "pipeline.settings",
    "pipeline.topics",
    "pipeline.errors",
]


RUNS_COMMANDS = {"cli", "pipeline.__main__"}
PRINTS = {"pipeline.cli", "pipeline.cli.views.terminal", "pipeline.cli.demo.screen"}
"""The module by which commands print, the screen of the demo, and what needs no library at all."""


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


def part_of(module: str) -> str:
    """The part that a module of ours belongs to: `core`, or its own name at the root."""
    names = module.split(".")
    if names[0] == "schemas":
        return "schemas"
    if len(names) > 1 and (ROOT / "pipeline" / names[1]).is_dir():
        return names[1]
    return ".".join(names[:2])


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] in {"schemas", "pipeline"}}


def foreign(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names - ours(names)}


def test_there_are_modules_to_look_at() -> None:
    assert {"schemas.fields", "pipeline.core.runs.verdict", "pipeline.errors"} <= MODULES.keys()
    assert "pipeline.core.json.canonical" in imports_of("pipeline.core.json.strict")
    assert part_of("pipeline.core.runs.verdict") == "core"
    assert part_of("pipeline.errors") == "pipeline.errors"


@pytest.mark.parametrize("module", [m for m in MODULES if part_of(m) in MAY_IMPORT])
def test_each_part_imports_only_what_lies_before_it(module: str) -> None:
    part = part_of(module)
    imported = {part_of(name) for name in ours(imports_of(module))}
    assert imported - {part, "pipeline"} <= MAY_IMPORT[part]


@pytest.mark.parametrize("module", [m for m in MODULES if part_of(m).startswith("pipeline.")])
def test_modules_at_the_root_import_nothing_that_builds_on_them(module: str) -> None:
    imported = {part_of(name) for name in ours(imports_of(module))} - {module}
    assert not imported & MAY_NOT_IMPORT.get(module, WHOLE_PROGRAMS_MAY_NOT_IMPORT)


def test_every_package_has_its_place() -> None:
    packages = {part_of(module) for module in MODULES if not part_of(module).startswith("pipeline")}
    assert packages <= MAY_IMPORT.keys() | {"app", "cli"}


@pytest.mark.parametrize("module", [m for m in MODULES if part_of(m) not in RUNS_COMMANDS])
def test_nothing_imports_the_command_line(module: str) -> None:
    assert "cli" not in {part_of(name) for name in ours(imports_of(module))}


PURE = [m for m in MODULES if part_of(m) in {"schemas", "core"}]


@pytest.mark.parametrize("module", PURE)
def test_core_and_schemas_touch_nothing_outside_themselves(module: str) -> None:
    # The one that writes files: the frozen schemas, for whoever asks for them.
    writes_files = {"pathlib"} if module == "schemas.export" else set()
    allowed = PURE_STANDARD_LIBRARY | PURE_LIBRARIES | writes_files
    assert foreign(imports_of(module)) <= allowed


@pytest.mark.parametrize("module", PURE)
def test_core_and_schemas_ask_for_no_time_and_no_file(module: str) -> None:
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            assert name not in IMPURE_NAMES
        assert not isinstance(node, ast.AsyncFunctionDef)


@pytest.mark.parametrize("module", [m for m in PURE if part_of(m) == "schemas"])
def test_schemas_need_pydantic_alone(module: str) -> None:
    libraries = foreign(imports_of(module)) - set(sys.stdlib_module_names)
    assert libraries <= {"pydantic", "pydantic_core"}


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


@pytest.mark.parametrize(
    "module", [*BASE_INSTALL, *(m for m in MODULES if m.startswith("schemas"))]
)
def test_what_a_producer_installs_needs_the_base_libraries_alone(module: str) -> None:
    if module not in MODULES:
        pytest.skip(f"{module} is not written yet")
    for name in everything_under(module):
        libraries = foreign(imports_of(name)) - set(sys.stdlib_module_names)
        assert libraries <= BASE_LIBRARIES, name


@pytest.mark.parametrize(
    "module", [m for m in MODULES if m.split(".")[0] == "pipeline" and m not in PRINTS]
)
def test_what_others_wrote_is_printed_by_one_module_that_makes_it_visible(module: str) -> None:
    if part_of(module) == "evidence_bundle":
        return
    text = MODULES[module].read_text()
    named = re.findall(r"\bprint\(|\becho\(|console\.print\(|sys\.stdout|sys\.stderr\.write", text)
    assert named == [], f"{module} prints past pipeline.cli.views.terminal"


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
        # Whoever made what is passed in closes it.
        arguments = {argument.arg for argument in function.args.args}
        known = closed_names(function) | arguments
        for loop in (each for each in ast.walk(function) if isinstance(each, ast.AsyncFor)):
            called = getattr(getattr(loop.iter, "func", None), "attr", "")
            if ast.unparse(loop.iter) not in known and called not in THEIR_STREAMS:
                yield f"{function.name}: {ast.unparse(loop.iter)}"


@pytest.mark.parametrize("module", [m for m in MODULES if part_of(m) != "schemas"])
def test_no_asynchronous_generator_is_left_to_the_garbage_collector(module: str) -> None:
    # One that holds a consumer would close it in a task of its own, whose error nobody takes.
    assert list(loops_left_open(ast.parse(MODULES[module].read_text()))) == []


def test_a_loop_over_a_call_is_found() -> None:
    left = "async def f(x):\n async for a in g(): pass"
    closed = "async def f(x):\n async with aclosing(g()) as b:\n  async for a in b: pass"
    assert list(loops_left_open(ast.parse(left))) == ["f: g()"]
    assert list(loops_left_open(ast.parse(closed))) == []

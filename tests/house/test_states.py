"""What happens next depends on the state of a plan: its reason only explains, and only the table changes state and phase."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from cutover.status.state import State
from harness.cluster import ROOT

PACKAGE = ROOT / "operator" / "cutover"
SHOWS = {
    "cli", "report",  # what users see
    "engine/criteria.py",  # the evidence of a report
    "status/status.py",  # how a failure is worded
    "status/phases.py",  # reads what was saved before there were states
}  # fmt: skip
OF_FAILURES = {"engine/releasing.py"}
"""These ask whether a failure that was recorded is that of a rollback on request; it is no reason of a phase."""
DRAFT = "saga/draft.py"
_SEARCHED = {"get", "startswith", "endswith"}


def sources(*left_out: str) -> list[Path]:
    """The modules, without some files and packages."""
    found = sorted(PACKAGE.rglob("*.py"))
    return [file for file in found if not {name(file), name(file).partition("/")[0]} & {*left_out}]


def name(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def is_reason(node: ast.AST, *, of_failures: bool) -> bool:
    """A reason of the saga by name, the reason of a status, or that of a status that was not read yet."""
    match node:
        case ast.Attribute(value=ast.Name(id="Reason")):
            return not of_failures
        case ast.Attribute(attr="reason", value=ast.Name(id="status") | ast.Attribute(attr="status")):
            return True
        case ast.Subscript(slice=ast.Constant(value="reason"), value=ast.Name(id="status")):
            return True
        case ast.Call(
            func=ast.Attribute(attr="get", value=ast.Name(id="status")), args=[ast.Constant(value="reason"), *_]
        ):
            return True
    return False


def deciding(tree: ast.AST) -> Iterator[ast.AST]:
    """Every expression that something depends on: comparisons, conditions, what is matched, looked up or searched."""
    for node in ast.walk(tree):
        match node:
            case ast.Compare():
                yield node
            case ast.Match(subject=subject, cases=cases):
                yield subject
                yield from (part for case in cases for part in (case.pattern, case.guard) if part is not None)
            case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
                yield test
            case ast.Subscript(slice=key):
                yield key
            case ast.Call(func=ast.Attribute(attr=called), args=args) if called in _SEARCHED:
                yield from args


def compared_reasons(text: str, *, of_failures: bool = False) -> list[int]:
    """The lines on which something depends on a reason, also by a name that it was given before."""
    tree = ast.parse(text)
    names = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and is_reason(node.value, of_failures=of_failures)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    return sorted({
        part.lineno
        for node in deciding(tree)
        for part in ast.walk(node)
        if isinstance(part, ast.expr | ast.pattern)
        and (is_reason(part, of_failures=of_failures) or (isinstance(part, ast.Name) and part.id in names))
    })  # fmt: skip


@pytest.mark.parametrize("file", sources(*SHOWS), ids=name)
def test_nothing_depends_on_a_reason(file: Path) -> None:
    found = compared_reasons(file.read_text(), of_failures=name(file) in OF_FAILURES)
    assert not found, f"{file} decides by a reason on lines {found}; make it a state of saga/tables.py"


@pytest.mark.parametrize(
    "text",
    [
        "if draft.status.reason == Reason.CLAIMING: ...",
        "if status.reason in REASONS: ...",
        "x = reason != Reason.CLAIMING",
        "waits = status.reason == 'Claiming'",
        "why = draft.status.reason\nif why in ('Claiming',): ...",
        "match status.reason:\n  case 'Claiming': ...",
        "match why:\n  case Reason.CLAIMING: ...",
        "x = {Reason.CLAIMING: 1}[status.reason]",
        "x = NEXT.get(status.reason)",
        "x = status.reason.startswith('C') if status.reason else 1",
        "if status.get('reason') == 'TargetBusy': ...",
        "if status['reason'] == 'TargetBusy': ...",
    ],
)
def test_such_a_dependence_is_found(text: str) -> None:
    assert compared_reasons(text)


@pytest.mark.parametrize(
    "text",
    [
        "draft.plan_event(event, Reason.CLAIMING)",
        "if foreign.reason == 'TargetReplaced': ...",
        "past = PastRun(reason=status.reason)",
        "if status.state is State.CLAIMING: ...",
    ],
)
def test_what_explains_is_allowed(text: str) -> None:
    assert not compared_reasons(text)


@pytest.mark.parametrize("file", [file for file in sources(DRAFT) if name(file).startswith("saga/")], ids=name)
def test_only_the_table_sets_what_a_plan_does(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "set":
            assert not {keyword.arg for keyword in node.keywords} & {"state", "phase", "reason"}, (file, node.lineno)


def test_the_saga_is_entered_at_its_beginning() -> None:
    """What is rare stands after `advance`."""
    body = ast.parse((PACKAGE / "saga" / "__init__.py").read_text()).body
    first = next(node for node in body if not isinstance(node, ast.Expr | ast.Import | ast.ImportFrom))
    assert isinstance(first, ast.FunctionDef)
    assert first.name == "advance"


def test_each_state_is_described_to_users() -> None:
    described = (State.__doc__ or "").partition("Attributes:\n")[2]
    assert [line.split(":")[0].strip() for line in described.strip().splitlines()] == list(State.__members__)

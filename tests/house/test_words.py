"""The words that this project has given up stay out of everything people read: messages, help, documents, examples.

Each retired word stands here with what to say instead; docs/glossary.md has the words that are used. A name that a page
cites, such as that of a test, is read word for word too. Names in the code and ordinary docstrings are not looked at: a
reviewer reads those.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.cluster import ROOT

RETIRED: dict[str, str] = {
    # places and times
    "in hand": "current",
    "anew": "again, from scratch, recreated",
    "all along": "throughout",
    "beforehand": "before the first step, in advance",
    r"before anything (?:is|was) touched": "before anything is changed",
    "meanwhile": "in the meantime, or say while what",
    "besides": "also, as well, beside (next to)",
    "likewise": "also, in the same way",
    "whatever": "say which: any, no matter what, regardless of",
    # mistakes and how they are told
    "mend(?:s|ed|ing)?": "fix",
    "every mistake": "every error",
    r"is no(?! (?:longer|later|sooner|older|newer|more|less|earlier|better|worse|larger))": "is not a",
    r"the most (?:is|are)": "the maximum is",
    "doubles|(?:is|are|stands?) there twice": "remove duplicates, is listed twice",
    r"(?:one|two|an?) [\w-]+ an? (?:pod|node|gate|guard|line|weight|kind|verb|step|stage|plan|object|target)": "one … per …",
    "there is no way to": "cannot reach, cannot",
    "says? at once": "reports at once",
    # what the operator does
    "steer(?:s|ed|ing)?": "manages, controls",
    "mind(?:s|ed|ing)?": "note, check, watch",
    "is not released for|released? for migrations": "is not allowed to run migrations",
    "gates? said|said pass": "4 gates passed",
    "nothing was judged": "no guard was evaluated",
    "no step is there": "no step changes …",
    # the plan going backward, or standing still
    "way back": "rollback, rollback order",
    r"turn(?:s|ed|ing)?(?: \w+)? back": "rolls back, rolled back",
    "unw(?:ind(?:s|ing)?|ound)": "roll back",
    "held|holders?": "paused (a plan), claimed by, owner (a claim)",
    r"holds? (?:the|a|an|it|its|this|that|another|every|all|no|his) (?:plan|target|claim|object|rollback|run)s?": "pauses, claims, blocks",
    "hold(?:s|ing)? up": "delays, blocks",
    r"lets?(?: \w+)? go|letting(?: \w+)? go": "release, abandon",
    r"(?:give|giving|gives|given|gave)(?: \w+)? up": "abandon, cancel, stop",
    "unbound|binds?|bound again": "finalizer added, finalizer removed, finalizer present",
    # people
    "wish(?:es|ed)?|desires?": "request",
    "strange(?:r|rs)?|meddl(?:e|er|ers|es|ing)": "unexpected, another writer",
    "befell|befall(?:s|en)?|trouble|amiss|alas": "conflict, problem, error",
}
"""What is not said any more, as a pattern whose words may be apart by a line break, and what to say instead."""

ALLOWED: dict[str, str] = {
    "there is no": "of what does not exist",
    "lease held": "the metric cutover_lease_held: a Lease is held",
    r"--bind-address|^bind$": "a server binds an address",
    r"https?://\S+": "an address is what it is",
}
"""Phrases in which a retired word is right all the same, each with its reason."""

OF_A_LEASE = re.compile(r"\bLease\b|\bleases?/|runtime/lease\.py")
"""Near to this a holder is right, and something may be held: that is Kubernetes' word for a Lease."""
_NEAR = 200


@dataclass(frozen=True)
class Text:
    """Something that people read, and where it stands."""

    file: Path
    line: int
    text: str


def _spread(phrase: str) -> str:
    """The same words, also where a line break is between them."""
    return phrase.replace(" ", r"\s+")


_RETIRED = {re.compile(rf"\b(?:{_spread(phrase)})\b", re.IGNORECASE): say for phrase, say in RETIRED.items()}
_ALLOWED = [re.compile(_spread(context), re.IGNORECASE) for context in ALLOWED]


def hits(text: Text) -> Iterator[str]:
    """One sentence for each retired word."""
    read = text.text.replace("_", " ")
    fine = [found.span() for context in _ALLOWED for found in context.finditer(read)]
    for pattern, say in _RETIRED.items():
        for found in pattern.finditer(read):
            near = f"{text.file} {text.text[max(0, found.start() - _NEAR) : found.end() + _NEAR]}"
            if found.group().lower() in ("held", "holder", "holders") and OF_A_LEASE.search(near):
                continue
            if not any(start <= found.start() and found.end() <= end for start, end in fine):
                line = text.line + text.text.count("\n", 0, found.start())
                word = " ".join(found.group().split())
                yield f"{text.file.relative_to(ROOT)}:{line}: {word!r}, say: {say}"


# --- what people read -----------------------------------------------------------------------------------------------------


def _strings(file: Path) -> Iterator[Text]:
    """String literals that are not docstrings, and docstrings that are shown: of verbs (help) and of models (kubectl explain)."""
    tree = ast.parse(file.read_text())
    docstrings, parts = set[ast.AST](), set[ast.AST]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            (first, *_), shown = node.body, _is_shown(node)
            assert isinstance(first, ast.Expr)
            docstrings.add(first.value)
            if shown:
                yield Text(file, first.lineno, ast.get_docstring(node) or "")
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.add(node.value)  # what is said of a constant, below it
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts |= {part for part in ast.walk(node) if isinstance(part, ast.Constant) and part in node.values}
            said = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield Text(file, node.lineno, said)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings | parts:
            yield Text(file, node.lineno, node.value)


def _is_shown(node: ast.AST) -> bool:
    if isinstance(node, ast.ClassDef):
        return any(isinstance(base, ast.Name) and base.id in _MODELS for base in node.bases)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return any("command" in ast.unparse(decorator) for decorator in node.decorator_list)
    return False


def _models() -> set[str]:
    """The names of all classes that pydantic makes a schema of."""
    found, before = {"BaseModel", "Model"}, 0
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for file in _code("operator")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    while len(found) > before:
        before = len(found)
        found |= {name for name, above in bases.items() if above & found}
    return found


def _code(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def _files(*patterns: str) -> list[Path]:
    found = [file for pattern in patterns for file in sorted(ROOT.glob(pattern))]
    return [
        file
        for file in found
        if file.is_file() and file.suffix in ("", ".md", ".yaml", ".json", ".tpl", ".txt", ".html")
    ]


_MODELS = _models()


def code() -> Iterator[Text]:
    """Messages and help of the operator, the command line, the demo, the bench and the local cluster."""
    for file in [*_code("operator"), *_code("demo"), *_code("bench"), *_code("tests/harness")]:
        yield from _strings(file)


def documents() -> Iterator[Text]:
    """Whatever else is read: pages, examples, the chart, the CRD, the traces."""
    for file in _files(
        "*.md", "docs/**/*.md", "findings/*.md", "examples/**/*.yaml", "demo/*.yaml", "crds/*.yaml", "charts/cutover/*",
        "charts/cutover/files/*", "charts/cutover/templates/*", "tests/engine/traces/*.txt", ".github/**/*", "Makefile", "Dockerfile",
    ):  # fmt: skip
        yield Text(file, 1, file.read_text())


def test_retired_words_are_gone() -> None:
    found = [hit for text in [*code(), *documents()] for hit in hits(text)]
    assert not found, f"{len(found)} retired words:\n" + "\n".join(dict.fromkeys(found))


# --- that it would find them ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("the step in\nhand", "in hand"),
        ("it is examined anew", "anew"),
        ("demo is no valid name", "is no"),
        ("one pod a node", "one pod a node"),
        ("so the plan turned back", "turned back"),
        ("Somebody else held it", "held"),
        ("it lets it go", "lets it go"),
        ("`engine/test_end.py::test_a_plan_made_anew`", "anew"),
    ],
)
def test_a_retired_word_is_found(said: str, word: str) -> None:
    (hit,) = hits(Text(ROOT / "README.md", 1, said))
    assert word in hit


@pytest.mark.parametrize(
    "said",
    [
        "there is no Service",
        "it is no longer there",
        "three requests a second",
        "the holder of the Lease",
        "a RoleBinding",
    ],
)
def test_what_is_right_is_not(said: str) -> None:
    assert list(hits(Text(ROOT / "README.md", 1, said))) == []


def test_everything_that_users_read_is_checked(tmp_path: Path) -> None:
    read = {text.file.relative_to(ROOT).parts[0] for text in [*code(), *documents()]}
    assert read >= {
        "operator",
        "demo",
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "docs",
        "examples",
        "crds",
        "charts",
        "tests",
    }
    assert {"Traffic", "Destination", "Plan"} <= _MODELS
    file = tmp_path / "one.py"
    file.write_text(
        '"""Of a module."""\nclass A(Model):\n    """Of a model."""\n\n@app.command()\ndef lint():\n    """Of a verb."""\n'
        '    f = """x\n"""\n    return f"it is {f} here" "and there"\n\ndef other():\n    """Of nothing."""\n'
    )
    assert [text.text for text in _strings(file)] == ["Of a model.", "Of a verb.", "it is {} hereand there", "x\n"]

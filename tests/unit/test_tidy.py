"""Style that matters is a test: no long functions, no long files, and the lists of exceptions only shrink."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("scheduler", "edge_server", "serverless_fn", "models", "scripts")
LONGEST_FUNCTION = 70
LONGEST_FILE = 400
LONG_FILES: frozenset[str] = frozenset()
LONG_FUNCTIONS: frozenset[str] = frozenset()
REACHES_INTO_TESTS = re.compile(
    r"""sys\.path\b|^\s*(from|import) (tests|support)\b|["']tests["'/]|["']support\.""", re.MULTILINE
)


def sources() -> Iterator[Path]:
    for room in ROOMS:
        yield from sorted((ROOT / room).rglob("*.py"))


def test_no_file_is_long_but_those_that_were() -> None:
    long = {str(path.relative_to(ROOT)) for path in sources() if len(path.read_text().splitlines()) > LONGEST_FILE}
    assert long == LONG_FILES


def test_no_function_is_long_but_those_that_were() -> None:
    long = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.add(f"{path.relative_to(ROOT)}:{node.name}")
    assert long == LONG_FUNCTIONS


def test_every_room_says_in_one_sentence_what_lives_there() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in sources()
        if path.name == "__init__.py" and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_modules_have_names_that_are_nouns_of_the_field() -> None:
    assert [str(path) for path in sources() if path.stem in {"utils", "util", "helpers", "misc", "common"}] == []


def test_nothing_outside_the_tests_reaches_into_them() -> None:
    assert [str(path.relative_to(ROOT)) for path in sources() if REACHES_INTO_TESTS.search(path.read_text())] == []


def test_the_architecture_names_every_file_of_the_scheduler() -> None:
    text = (ROOT / "scheduler" / "ARCHITECTURE.md").read_text()
    names = {path.stem for path in (ROOT / "scheduler").rglob("*.py")} - {"__init__", "__main__"}
    assert sorted(name for name in names if not re.search(rf"\b{name}\b", text)) == []

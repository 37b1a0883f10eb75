"""Small mistakes, made one at a time in a copy of the checkout: which of them does no test notice?

``python -m tests.mutate pop3toy/mail/octets.py tests.mail tests.pop3`` changes the file in one place, runs
these tests, and so on; ``--lines 40-60`` and ``--most 30`` make it shorter.  Run by hand over what a change
touches.  A survivor is a missing test, a line that is not needed, or a change that changes nothing (read it).

Of the libraries mutmut runs pytest alone, and cosmic-ray writes into the checkout and drops no statements.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: A mutant has this many times what the tests take, and some seconds for slower turns of the machine.
PATIENCE, START = 3.0, 10.0

_PAIRS = ((ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn))
_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}
#: Statements that can be left out.
_DROPPED = (
    ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return, ast.Raise, ast.Assert, ast.Delete,
    ast.Break, ast.Continue,
)  # fmt: skip


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """Each small change of a source: its line, what it is, and the source with it."""
    count = sum(1 for _ in _changes(ast.parse(source)))
    for number in range(count):
        tree = ast.parse(source)
        line, what, change = next(one for at, one in enumerate(_changes(tree)) if at == number)
        change()
        yield line, what, ast.unparse(ast.fix_missing_locations(tree))


def _changes(tree: ast.Module) -> Iterator[tuple[int, str, Callable[[], object]]]:
    """All changes that can be made in a tree, the same for the same source."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.While | ast.IfExp):
            test = node.test
            negated = ast.UnaryOp(ast.Not(), test)
            yield (
                test.lineno,
                f"not ({_short(test)})",
                lambda node=node, new=negated: setattr(node, "test", new),
            )
        if isinstance(node, ast.BoolOp):
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            what = f"'and' for 'or' or the other way: {_short(node)}"
            yield node.lineno, what, lambda node=node, other=other: setattr(node, "op", other)
        if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARED:
            swapped = [_COMPARED[type(node.ops[0])](), *node.ops[1:]]
            what = f"{_short(node)} with {type(swapped[0]).__name__}"
            yield node.lineno, what, lambda node=node, new=swapped: setattr(node, "ops", new)
        if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            value = not node.value if isinstance(node.value, bool) else node.value + 1
            what = f"{value} for {node.value}"
            yield node.lineno, what, lambda node=node, value=value: setattr(node, "value", value)
        for body in (
            getattr(node, "body", None),
            getattr(node, "orelse", None),
            getattr(node, "finalbody", None),
        ):
            for at, statement in enumerate(body if isinstance(body, list) else ()):
                if isinstance(statement, _DROPPED) and not _is_text(statement):
                    what = f"dropped: {_short(statement)}"
                    yield statement.lineno, what, lambda body=body, at=at: body.__setitem__(at, ast.Pass())


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 70 else text[:67] + "..."


def _is_text(statement: ast.stmt) -> bool:
    """Whether it is a docstring, or ``...``."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def passes(folder: Path, tests: list[str], seconds: float | None) -> bool:
    """Whether tests pass in a copy of the checkout; not in time is no."""
    with subprocess.Popen(
        [sys.executable, "-m", "twisted.trial", "--exitfirst", *tests],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            return process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            # And what it has started.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def main() -> int:
    """Name the survivors; 1 if there are some."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutate", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("file", type=lambda name: Path(name).resolve().relative_to(ROOT.resolve()))
    parser.add_argument("tests", nargs="+")
    parser.add_argument("--lines", default="1-1000000", help="FIRST-LAST")
    parser.add_argument("--most", type=int, default=100, help="a sample of this many, if there are more")
    said = parser.parse_args()
    first, last = map(int, said.lines.split("-"))
    tried = [one for one in mutants((ROOT / said.file).read_text("utf-8")) if first <= one[0] <= last]
    # The same sample each time, so that what was mended is seen to be.
    tried = sorted(random.Random(0).sample(tried, min(said.most, len(tried))), key=lambda one: one[0])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "copy"
        ignored = shutil.ignore_patterns(".*", "_trial_temp*", "__pycache__", "build", "dist")
        shutil.copytree(ROOT, folder, ignore=ignored)
        begun = time.monotonic()
        if not passes(folder, said.tests, None):
            parser.error("the tests fail without a change")
        seconds = START + PATIENCE * (time.monotonic() - begun)
        survivors = 0
        for line, what, source in tried:
            (folder / said.file).write_text(source, "utf-8")
            if passes(folder, said.tests, seconds):
                survivors += 1
                print(f"{said.file}:{line}: {what}", flush=True)
    print(f"{len(tried)} mistakes, {survivors} of them not noticed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())

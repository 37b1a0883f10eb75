"""The texts of explanations and of the password page: ``python -m tests.catalogue`` takes them from the code.

It writes ``pop3toy/locale/pop3toy.pot``, puts new texts into each ``.po``, takes old ones out, and compiles
the ``.mo`` files, which are kept in the repository and shipped.  What is empty or ``fuzzy`` in a ``.po`` then
is to be translated; run it once more behind that.
"""

from __future__ import annotations

import ast
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

import pop3toy
from pop3toy.languages import LANGUAGES

SOURCE = Path(pop3toy.__file__).parent
LOCALE = SOURCE / "locale"
TEMPLATE = LOCALE / "pop3toy.pot"
#: Those with a catalogue.
TRANSLATED = tuple(language for language in LANGUAGES if language != "en")

#: Files say nothing of when they were made, so that they are the same as long as the code is.
_WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def texts(tree: ast.AST) -> Iterator[tuple[int, str | tuple[str, str]]]:
    """The texts of a module, each with its line: those in ``N_`` and ``_note``, and what ``say`` counts."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        said = [
            one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)
        ]
        literal = bool(node.args) and isinstance(node.args[0], ast.Constant)
        if name in ("N_", "_note") and literal:
            yield node.lineno, said[0]
        elif name in ("say", "_say", "_counted") and said:
            yield node.lineno, (said[0], said[1])


def _empty(language: str | None) -> Catalog:
    return Catalog(
        language,
        header_comment="# What pop3toy explains; see CONTRIBUTING.rst.",
        project="pop3toy",
        version="1",
        msgid_bugs_address="the pop3toy authors",
        last_translator="the pop3toy authors",
        language_team="the pop3toy authors",
        creation_date=_WHEN,
        revision_date=_WHEN,
        charset="utf-8",
        fuzzy=False,
    )


def template() -> Catalog:
    """All texts of the code."""
    catalogue = _empty(None)
    folders = SOURCE / "observe", SOURCE / "run" / "passwords"
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        where = path.relative_to(SOURCE.parent).as_posix()
        for line, text in texts(ast.parse(path.read_text("utf-8"))):
            catalogue.add(text, locations=[(where, line)])
    return catalogue


def po(language: str) -> Path:
    """Where a language's translations are."""
    return LOCALE / language / "LC_MESSAGES" / "pop3toy.po"


def read(path: Path, language: str | None = None) -> Catalog:
    """The texts of a file."""
    with path.open("rb") as file:
        return read_po(file, locale=language)


def written(catalogue: Catalog) -> bytes:
    """A catalogue as text.  Without line numbers, which change with every line of code."""
    out = io.BytesIO()
    write_po(out, catalogue, width=100, include_lineno=False, omit_header=False, sort_by_file=True)
    # The same whichever Babel writes it.
    return b"".join(
        line for line in out.getvalue().splitlines(keepends=True) if not line.startswith(b'"Generated-By')
    )


def compiled(catalogue: Catalog) -> bytes:
    """A catalogue as the server reads it."""
    out = io.BytesIO()
    write_mo(out, catalogue)
    return out.getvalue()


def main() -> None:
    """Extract, update, compile."""
    found = template()
    LOCALE.mkdir(exist_ok=True)
    TEMPLATE.write_bytes(written(found))
    for language in TRANSLATED:
        path = po(language)
        if path.exists():
            catalogue = read(path, language)
            # Not the header of the template.
            catalogue.update(found, update_creation_date=False, update_header_comment=False)
            catalogue.obsolete.clear()
        else:
            path.parent.mkdir(parents=True)
            catalogue = _empty(language)
            catalogue.update(found)
        path.write_bytes(written(catalogue))
        # With every text: one that is missing is English.
        path.with_suffix(".mo").write_bytes(compiled(catalogue))
        missing = sum(not message.string or message.fuzzy for message in catalogue if message.id)
        print(f"{language}: {len(catalogue)} texts, {missing} to be translated")


if __name__ == "__main__":
    main()

"""Links between pages, written as ```rfc.rst <rfc.rst>`_``, lead to the pages that are made of them.

``page.rst#section`` leads to a section there.

So the pages can be read in the repository as well.  What is linked and is no page,
such as an example, is put beside the pages.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

log = logging.getLogger(__name__)


def resolve(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Correct the links of one page."""
    source = Path(app.srcdir).resolve()
    for reference in list(doctree.findall(nodes.reference)):
        target = reference.get("refuri", "")
        if ":" in target and not target.startswith("http"):
            # docutils takes tcp:2590 and ann@example.org for something to go to.
            reference.replace_self(reference.children)
        if reference.get("internal") or not target or ":" in target or target.startswith("#"):
            continue
        target, hash_, section = target.partition("#")
        path = (source / docname).parent.joinpath(target).resolve()
        name = path.relative_to(source) if path.is_relative_to(source) else None
        if name is not None and path.suffix == ".rst" and str(name.with_suffix("")) in app.env.found_docs:
            reference["refuri"] = (
                app.builder.get_relative_uri(docname, str(name.with_suffix(""))) + hash_ + section
            )
        elif name is not None and path.exists():
            copy(path, Path(app.outdir) / name)
        else:
            log.warning("no such page: %s", target, location=reference)


def copy(path: Path, to: Path) -> None:
    """Put a file, or a folder's files, beside the pages."""
    if path.is_dir():
        shutil.copytree(path, to, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx of it."""
    app.connect("doctree-resolved", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

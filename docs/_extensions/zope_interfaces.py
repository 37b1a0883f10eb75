"""``.. autointerface:: pop3toy.IMailbox`` in a page: a zope interface, its methods with their signatures.

autodoc takes an interface for an object, and shows none of its methods.
``zope.interface`` knows names and docstrings; the annotations, which it drops, are
read from the source.  In other signatures an annotation that is an interface gets
its name back.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.domains.python import PyClasslike
from sphinx.util.docutils import SphinxDirective
from zope.interface import Interface
from zope.interface.interface import InterfaceClass


class InterfaceDescription(PyClasslike):
    """``.. py:interface:: IMailbox``: shown as an interface, found as a class."""

    def get_signature_prefix(self, sig: str) -> list[nodes.Node]:
        """What stands before the name."""
        return [nodes.Text("interface"), addnodes.desc_sig_space()]

    def add_target_and_index(self, name_cls: tuple[str, str], sig: str, signode: nodes.Element) -> None:
        """Let ``:class:`` find it."""
        self.objtype = "class"
        super().add_target_and_index(name_cls, sig, signode)


class AutoInterface(SphinxDirective):
    """An interface with all that it declares itself."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """What the page shows."""
        module, _, name = self.arguments[0].rpartition(".")
        interface = getattr(import_module(module), name)
        if not isinstance(interface, InterfaceClass):
            raise self.error(f"{self.arguments[0]} is no zope interface")
        self.env.note_dependency(inspect.getsourcefile(import_module(interface.__module__)))
        return self.parse_text_to_nodes("\n".join(described(interface, module)))


def described(interface: InterfaceClass, module: str) -> Iterator[str]:
    """The reStructuredText of an interface under its public module's name."""
    name = interface.getName()
    yield f".. py:interface:: {name}"
    yield f"   :module: {module}"
    yield f"   :canonical: {interface.__module__}.{name}"
    yield ""
    bases = [base for base in interface.__bases__ if base is not Interface]
    if bases:
        yield "   Extends " + ", ".join(f":class:`~{base.__identifier__}`" for base in bases) + "."
        yield ""
    yield from indented(interface.__doc__, 3)
    members = declarations(interface)
    for member, description in sorted(
        interface.namesAndDescriptions(), key=lambda one: [*members].index(one[0])
    ):
        yield f"   {members[member]}"
        yield ""
        yield from indented(description.getDoc(), 6)


def declarations(interface: InterfaceClass) -> dict[str, str]:
    """What an interface's source declares, in its order, each as the directive that describes it."""
    tree = ast.parse(inspect.getsource(import_module(interface.__module__)))
    [found] = [
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == interface.getName()
    ]
    members = {}
    for node in found.body:
        if isinstance(node, ast.FunctionDef):
            returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
            members[node.name] = f".. py:method:: {node.name}({ast.unparse(node.args)}){returns}"
        elif isinstance(node, ast.AnnAssign):
            kind = ast.unparse(node.annotation)
            members[node.target.id] = f".. py:attribute:: {node.target.id}\n      :type: {kind}"
    return members


def indented(docstring: str, columns: int) -> Iterator[str]:
    """A docstring's lines, and an empty one."""
    for line in [*inspect.cleandoc(docstring).splitlines(), ""]:
        yield " " * columns + line if line else ""


def named(app: Sphinx, *about: object) -> tuple[str | None, ...]:
    """A signature, and what it returns, in which interfaces have names; a default made anew is dots."""
    said, returned = about[-2:]
    return tuple(
        part and re.sub(r"<InterfaceClass ([\w.]+)>", r"~\1", part.replace("<factory>", "..."))
        for part in (said, returned)
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx of the two directives."""
    app.add_directive_to_domain("py", "interface", InterfaceDescription)
    app.add_directive("autointerface", AutoInterface)
    app.connect("autodoc-process-signature", named)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

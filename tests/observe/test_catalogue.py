"""The texts of explanations: all are in the catalogues, translated, and whatever the server knows has one."""

from __future__ import annotations

import ast
import gettext
import re
import string
from importlib.util import find_spec
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from pop3toy import errors
from pop3toy.auth.sasl.names import MECHANISM_NAMES
from pop3toy.installation import install_hint
from pop3toy.observe.explain import pop3, sasl, smtp
from pop3toy.observe.explain.explanation import say_in
from pop3toy.pop3 import dispatch
from pop3toy.smtp.policies import LMTP, SMTP, SUBMISSION

from ..test_boundaries import ROOT


class CatalogueTests(SynchronousTestCase):
    """What ``python -m tests.catalogue`` makes is there, and is complete."""

    def setUp(self) -> None:
        if find_spec("babel") is None:
            raise SkipTest(f"Babel is not installed ({install_hint('dev')})")

    def messages(self, catalogue: Any) -> dict[Any, Any]:
        """The texts and their translations."""
        return {message.id: message.string for message in catalogue if message.id}

    def test_template(self) -> None:
        """The template holds the texts of the code, no more and no less."""
        from .. import catalogue

        kept = self.messages(catalogue.read(catalogue.TEMPLATE))
        self.assertGreater(len(kept), 200)
        self.assertEqual(set(kept), set(self.messages(catalogue.template())))

    def test_translations(self) -> None:
        """Each text is translated into each language, and nobody's guess; no old one is left."""
        from .. import catalogue

        wanted = set(self.messages(catalogue.template()))
        for language in catalogue.TRANSLATED:
            found = catalogue.read(catalogue.po(language), language)
            self.assertEqual(set(self.messages(found)), wanted)
            self.assertEqual(len(found.obsolete), 0)
            for message in found:
                strings = message.string if isinstance(message.string, tuple) else (message.string,)
                self.assertTrue(all(strings), message.id)
                self.assertFalse(message.fuzzy and message.id, message.id)
                if isinstance(message.id, tuple):
                    self.assertEqual(len(strings), found.num_plurals, message.id)

    def test_names(self) -> None:
        """Names (POP3, TLS, DELE) are the same in a translation: no text has that of another."""
        from .. import catalogue

        def names(text: str) -> set[str]:
            return set(re.findall(r"[A-Z][A-Z0-9]{2,}[\w-]*", text))

        for language in catalogue.TRANSLATED:
            for text, translated in self.messages(catalogue.read(catalogue.po(language), language)).items():
                one, other = (text, translated) if isinstance(text, str) else (text[0], translated[0])
                self.assertLessEqual(names(one), names(other), one)

    def test_placeholders(self) -> None:
        """A translation puts in the values that the text does."""
        from .. import catalogue

        def fields(text: str) -> set[str]:
            return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}

        for language in catalogue.TRANSLATED:
            for text, translated in self.messages(catalogue.read(catalogue.po(language), language)).items():
                pairs = (
                    zip(text, translated, strict=True) if isinstance(text, tuple) else [(text, translated)]
                )
                for one, other in pairs:
                    self.assertEqual(fields(one), fields(other), one)

    def test_compiled(self) -> None:
        """What the server reads is what the translators wrote."""
        from .. import catalogue

        for language in catalogue.TRANSLATED:
            path = catalogue.po(language)
            with path.with_suffix(".mo").open("rb") as file:
                compiled: Any = gettext.GNUTranslations(file)
            for text, translated in self.messages(catalogue.read(path, language)).items():
                if isinstance(text, tuple):
                    self.assertEqual([compiled.ngettext(*text, n) for n in (1, 2)], list(translated))
                else:
                    self.assertEqual(compiled.gettext(text), translated)

    def test_texts_begin_and_end_alike(self) -> None:
        """Where the text is a sentence its translation is one, and where it is a part of one, too."""
        from .. import catalogue

        for text, translated in self.messages(catalogue.read(catalogue.po("it"), "it")).items():
            one, other = (text[0], translated[0]) if isinstance(text, tuple) else (text, translated)
            self.assertEqual(one.endswith("."), other.endswith("."), one)

    def test_every_language(self) -> None:
        """Each language says something of its own; a language without a catalogue is English."""
        text = "Ends the session."
        self.assertEqual(say_in("it")(text), "Termina la sessione.")
        self.assertEqual(say_in("en")(text), text)


class EverythingTests(SynchronousTestCase):
    """Each thing that the server says or takes has a text."""

    def test_commands_of_pop3(self) -> None:
        known = {name for table in dispatch.TABLES.values() for name in table}
        self.assertIn("RETR", known)
        self.assertEqual(known - set(pop3.COMMANDS), set())

    def test_commands_of_smtp(self) -> None:
        for policy in (SMTP, SUBMISSION, LMTP):
            self.assertIn("MAIL", policy.verbs)
            self.assertEqual(policy.verbs - set(smtp.COMMANDS), set(), policy.name)

    def test_capabilities(self) -> None:
        """Each row of CAPA's table, by the words in the code."""
        source = (ROOT / "pop3" / "capabilities.py").read_text("utf-8")
        names = set(re.findall(r'f?"([A-Z][A-Z0-9-]+)(?: [^"]*)?" ?(?:if |,|\n)', source))
        self.assertLessEqual({"TOP", "SASL", "STLS", "EXPIRE", "IMPLEMENTATION", "LOGIN-DELAY"}, names)
        self.assertEqual(names - set(pop3.CAPABILITIES), set())

    def test_extensions(self) -> None:
        """Each line that EHLO can have."""
        source = (ROOT / "smtp" / "greeting.py").read_text("utf-8")
        body = source[source.index("def _extensions") : source.index("def starttls")]
        names = set(re.findall(r'f?"([A-Z0-9]{4,})\b', body))
        self.assertLessEqual({"PIPELINING", "SIZE", "8BITMIME", "AUTH", "STARTTLS"}, names)
        self.assertEqual(names - set(smtp.EXTENSIONS), set())

    def test_mechanisms(self) -> None:
        self.assertEqual(set(MECHANISM_NAMES) - set(sasl.MECHANISMS), set())

    def test_response_codes(self) -> None:
        """Each code that a refusal has."""
        refusals = [one for one in vars(errors).values() if isinstance(one, type)]
        codes = {one.code for one in refusals if issubclass(one, errors.Refusal) and one.code}
        self.assertIn("IN-USE", codes)
        self.assertEqual(codes - set(pop3.CODES), set())

    def test_reply_codes(self) -> None:
        """Each code of SMTP that stands in its code."""
        codes = set()
        for path in (ROOT / "smtp").glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                values = node.args if isinstance(node, ast.Call) else getattr(node, "elts", [])
                if values and isinstance(values[0], ast.Constant) and str(values[0].value).isdecimal():
                    codes.add(str(values[0].value))
        codes = {code for code in codes if len(code) == 3}
        self.assertGreater(len(codes), 15)
        self.assertEqual(codes - set(smtp.CODES), set())

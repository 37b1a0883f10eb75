"""The conversations of ``docs/pop3-by-example.rst``, in each language, are what the server says."""

from __future__ import annotations

import re
from itertools import zip_longest

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from .pages import page
from .tour import EXPERIMENTS, PAGES, block, conversation, missing, picture, pieces, settled, words


class TourTests(SynchronousTestCase):
    """Each experiment is made again, and compared but for times, ports and random text."""

    def shown(self, name: str) -> dict[str, str]:
        """The conversations of a page, by their experiments."""
        _, *found = pieces(page(name))
        return dict(zip(found[::3], found[1::3], strict=True))

    def test_all_are_there(self) -> None:
        """Each page has all experiments, in their order."""
        for name in PAGES.values():
            self.assertEqual(tuple(self.shown(name)), EXPERIMENTS)

    def test_languages_agree(self) -> None:
        """The pages differ in their words, not in what client and server say."""
        english, italian = (self.shown(name) for name in PAGES.values())
        for experiment in EXPERIMENTS:
            said = [
                [line for line in settled(text).splitlines() if "]    " not in line]
                for text in (english[experiment], italian[experiment])
            ]
            self.assertEqual(said[0], said[1], experiment)
            self.assertNotEqual(english[experiment], italian[experiment])

    def test_readme(self) -> None:
        """README.rst shows a session that breaks off."""
        shown = self.shown("README.rst")
        self.assertEqual(list(shown), ["first"])
        self.compare("first", "README.rst", shown["first"], "en")

    def test_picture(self) -> None:
        """The picture in README.rst shows the same, in colours, and loads nothing from elsewhere."""
        self.assertIn("image:: docs/explained.svg", page("README.rst"))
        drawn = page("docs/explained.svg")
        self.assertEqual(words(drawn), words(picture()))
        self.assertIn("without&#160;QUIT", drawn)
        self.assertGreater(len(set(re.findall(r"fill: #\w{6}", drawn))), 4)
        self.assertNotIn("url(http", drawn)

    def compare(self, experiment: str, where: str, shown: str, language: str) -> None:
        """Make an experiment, and compare it with what is shown."""
        if why := missing(experiment):
            raise SkipTest(why)
        made = settled(block(conversation(experiment, language))).splitlines()
        for number, (one, other) in enumerate(zip_longest(settled(shown).splitlines(), made), 1):
            self.assertEqual(one, other, f"{where}, {experiment}, line {number}; see CONTRIBUTING.rst")


def _test_of(experiment: str, language: str, name: str) -> None:
    def test(self: TourTests) -> None:
        self.compare(experiment, name, self.shown(name)[experiment], language)

    test.__doc__ = f"{experiment}, in the language {language}."
    setattr(TourTests, f"test_{experiment.replace('-', '_')}_{language}", test)


for _experiment in EXPERIMENTS:
    for _language, _name in PAGES.items():
        _test_of(_experiment, _language, _name)

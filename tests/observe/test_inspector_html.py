"""HTML of messages: what is left of it."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pop3toy.observe.inspector.html import harmless

OUTSIDE = "http://x.example/"


def left(html: str) -> str:
    """Without what is before all."""
    start = '<!doctype html><meta charset="utf-8">'
    whole = harmless(html)
    assert whole.startswith(start)
    return whole.removeprefix(start)


class HarmlessTests(SynchronousTestCase):
    """What is shown, and what is not."""

    def test_kept(self) -> None:
        """Text with its looks, tables, and pictures that are in the message itself."""
        for html in (
            '<p style="color: red">A &lt;b&gt; <b class="x">bold</b> &amp; plain<br></p>',
            '<table border="1"><tr><td colspan="2">x</td></tr></table>',
            '<img src="data:image/png;base64,AAAA" alt="dot">',
            "<style>p > b { color: red }</style>",
        ):
            self.assertEqual(left(html), html)

    def test_left_out(self) -> None:
        """Whatever loads something, runs or leads away is gone, with what is in it."""
        for html in (
            f"<script>x</script><script src='{OUTSIDE}'></script>",
            f"<iframe src={OUTSIDE}>x</iframe>",
            f"<link rel=preconnect href={OUTSIDE}><link rel=stylesheet href={OUTSIDE}>",
            f"<meta http-equiv=refresh content='0;url={OUTSIDE}'><base href={OUTSIDE}>",
            f"<object data={OUTSIDE}><embed src={OUTSIDE}>x</object><video poster={OUTSIDE}></video>",
            f"<form action={OUTSIDE}><input formaction={OUTSIDE}></form>",
            f"<svg><image href={OUTSIDE} /></svg><math><a href={OUTSIDE}>x</a></math>",
            "<title>x</title><!-- x --><noscript>x</noscript>",
            "<iframe>" * 3 + "x" + "</iframe>" * 3,
        ):
            self.assertEqual(left(html), "", html)

    def test_attributes(self) -> None:
        """Attributes that are not known are gone; where a link led is told."""
        self.assertEqual(
            left(
                f"<a href={OUTSIDE} onclick=x ping={OUTSIDE}>go</a><img src={OUTSIDE} srcset={OUTSIDE} alt=a>"
            ),
            f'<a title="{OUTSIDE}">go</a><img alt="a">',
        )
        self.assertEqual(left("""<p title='"><script>'>x</p>"""), '<p title="&quot;&gt;&lt;script&gt;">x</p>')

    @given(st.text(alphabet="<>/!-\"'= abisrcptylefmh&;\n\0", max_size=60))
    def test_anything(self, html: str) -> None:
        """Whatever it is, what comes out holds no element that was not meant to be kept."""

        class Elements(HTMLParser):
            def handle_starttag(self, tag: str, attrs: object) -> None:
                found.add(tag)

        found: set[str] = set()
        Elements().feed(left(html))
        self.assertFalse(found & {"script", "iframe", "link", "form", "base", "meta", "svg"}, html)
        self.assertEqual(left(html), left(left(html)))

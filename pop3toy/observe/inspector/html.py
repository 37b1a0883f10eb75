"""HTML of a message without what would load something, or lead away.

The answer's policy (``access.FOR_MAIL``) lets no script run and nothing be loaded; but browsers connect to
the server of an ``<iframe>`` or a ``<link rel=preconnect>`` before they look at a policy, and so tell the
sender that the message was looked at.  So only elements and attributes that are known are left.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from html.parser import HTMLParser

__all__ = ["harmless"]

_KEPT = frozenset(
    str.split(
        "a abbr address article aside b big blockquote br caption center cite code col colgroup dd del "
        "details dfn div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd "
        "li main mark nav ol p pre q s samp section small span strike strong style sub summary sup table "
        "tbody td tfoot th thead time tr tt u ul var wbr"
    )
)
#: What is in them is not shown, either.
_LEFT_OUT = frozenset(
    str.split(
        "applet audio canvas frameset iframe math noembed noframes noscript object script select svg "
        "template textarea title video xmp"
    )
)
_ATTRIBUTES = frozenset(
    str.split(
        "align alt bgcolor border cellpadding cellspacing class color cols colspan dir face height id lang "
        "rowspan size span start style summary title type valign value width"
    )
)


def harmless(html: str) -> str:
    """The same with nothing in it that loads or leads anywhere; where links led is told as their title."""
    kept = _Kept()
    kept.feed(html)
    kept.close()
    return f'<!doctype html><meta charset="utf-8">{"".join(kept.parts)}'


class _Kept(HTMLParser):
    """Collects what is left."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        # The element whose end is waited for, and how many of its name are open.
        self._within = ""
        self._depth = 0
        self._style = False

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        """See ``HTMLParser``."""
        if self._within:
            self._depth += tag == self._within
        elif tag in _LEFT_OUT:
            self._within, self._depth = tag, 1
        elif tag in _KEPT:
            self._style = tag == "style"
            self.parts.append(f"<{tag}{''.join(map(_attribute, attrs))}>")

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        """See ``HTMLParser``: a browser takes no notice of the slash."""
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        """See ``HTMLParser``."""
        if self._within:
            self._depth -= tag == self._within
            if not self._depth:
                self._within = ""
        elif tag in _KEPT:
            self._style = False
            self.parts.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        """See ``HTMLParser``."""
        if not self._within:
            # A style sheet is no text, and cannot hold its own end.
            self.parts.append(data.replace("<", "") if self._style else escape(data, quote=False))


def _attribute(attribute: tuple[str, str | None]) -> str:
    name, value = attribute
    value = value or ""
    if name == "href":
        name = "title"
    elif not (name in _ATTRIBUTES or (name == "src" and value.lower().startswith("data:image/"))):
        return ""
    return f' {name}="{escape(value)}"'

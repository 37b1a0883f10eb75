"""The JSON Schema of JSON Lines: ``python -m pop3toy.observe.json_schema > docs/transcript.schema.json``.

Made from the events themselves: their fields, types and comments.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Sequence
from typing import Any, get_type_hints

from .. import events
from ..events import KINDS
from ..interfaces import Channel, TLSFacts

__all__ = ["json_schema"]

_TYPES: dict[object, dict[str, object]] = {
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bytes: {"type": "string"},
    bool: {"type": "boolean"},
    str | None: {"type": ["string", "null"]},
    Sequence[str]: {"type": "array", "items": {"type": "string"}},
    Channel: {"$ref": "#/$defs/Channel"},
    TLSFacts: {"$ref": "#/$defs/TLS"},
}

#: Whom a message was delivered to, each with its unique-id there.
_UIDS: dict[str, object] = {
    "type": "array",
    "items": {
        "type": "array",
        "prefixItems": [{"type": "string"}, {"type": "string"}],
        "items": False,
        "minItems": 2,
    },
}


def json_schema() -> dict[str, object]:
    """The schema of one line."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An event of a POP3, SMTP, submission or LMTP connection, as --transcript-json writes it",
        "description": "Octets are text in UTF-8; what is no UTF-8 is a lone surrogate, U+DC80 to U+DCFF.",
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in (*(kind.__name__ for kind in KINDS), "Lost")],
        "$defs": {
            **{kind.__name__: _event(kind) for kind in KINDS},
            "Lost": _object(
                "Events that are missing here, because they could not be written, or not fast enough.",
                {"event": {"const": "Lost"}, "events": {"type": "integer", "description": "How many."}},
            ),
            "Channel": _object(
                "The connection that a session speaks through.",
                {
                    "host": {
                        "type": "string",
                        "description": "The client's address; `unix` for a Unix socket.",
                    },
                    "local": {"type": "boolean", "description": "Whether it is loopback or a Unix socket."},
                    "tls": {"oneOf": [{"type": "null"}, {"$ref": "#/$defs/TLS"}]},
                },
            ),
            "TLS": _object(
                "What TLS agreed on.",
                {
                    "version": {"type": "string", "description": "Such as `TLSv1.3`."},
                    "cipher": {"type": "string"},
                    "client_name": {
                        "type": ["string", "null"],
                        "description": "The name in a client certificate that was verified.",
                    },
                },
            ),
        },
    }


def _object(description: str, properties: dict[str, object]) -> dict[str, object]:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _event(kind: type) -> dict[str, object]:
    comments = _comments(kind)
    properties: dict[str, object] = {
        "event": {"const": kind.__name__},
        "time": {"type": "string", "format": "date-time", "description": "The time of day, UTC."},
    }
    for name, of_type in get_type_hints(kind, vars(events)).items():
        schema = _TYPES.get(of_type, _UIDS)
        properties[name] = {**schema, **({"description": comments[name]} if name in comments else {})}
    return _object(_plain(inspect.getdoc(kind) or ""), properties)


def _comments(kind: type) -> dict[str, str]:
    """What the comments before the fields say; those of ``session`` and ``at`` are the same everywhere."""
    found = {
        "session": "The connection's number, by which all its events belong together; 0 for what is of none.",
        "at": "Seconds of the connection's clock, which is not the time of day.",
    }
    comment: list[str] = []
    for line in inspect.getsource(kind).splitlines():
        if said := re.match(r"\s*#: ?(.*)", line):
            comment.append(said[1])
        elif field := re.match(r"    (\w+): ", line):
            if comment:
                found[field[1]] = _plain(" ".join(comment))
            comment = []
        else:
            comment = []
    return found


def _plain(text: str) -> str:
    """Without the markup of docstrings."""
    text = re.sub(r":\w+:" r"`~?([^`]*\.)?([^`]+)`", r"`\2`", " ".join(text.split()))
    return text.replace("``", "`")


def _dump() -> str:
    schema: Any = json_schema()
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    print(_dump(), end="")

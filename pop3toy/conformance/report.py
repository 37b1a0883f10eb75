"""What was found, for people, for programs, and for CI."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from .rules import Level, Outcome, Result
from .table import TITLES
from .target import Target

__all__ = ["as_json", "as_junit", "as_text", "failures", "summary"]

_MARKS = {Outcome.PASSED: "passed", Outcome.FAILED: "FAILED", Outcome.NOT_TESTED: "-"}


def failures(results: Sequence[Result], level: Level = Level.MUST) -> list[Result]:
    """The rules of a level that are broken."""
    return [one for one in results if one.outcome is Outcome.FAILED and one.rule.level is level]


def name(target: Target) -> str:
    """``mail.example.org:995, TLS, as ann``."""
    how = {"none": "without TLS", "stls": "STLS", "implicit": "TLS"}[target.tls]
    return f"{target.host}:{target.port}, {how}, as {target.user}"


def summary(results: Sequence[Result]) -> str:
    """How many passed, how many did not, in a line."""
    counts = {outcome: sum(one.outcome is outcome for one in results) for outcome in Outcome}
    broken = [f"{len(failures(results, level))} {level.value}" for level in Level if failures(results, level)]
    failed = f"{counts[Outcome.FAILED]} failed" + (f" ({', '.join(broken)})" if broken else "")
    return f"{counts[Outcome.PASSED]} passed, {failed}, {counts[Outcome.NOT_TESTED]} not tested"


def as_text(target: Target, results: Sequence[Result]) -> str:
    """For people: each rule in a line, below what fails how, and the lines that show it."""
    return "\n".join(_text(target, results)) + "\n"


def _text(target: Target, results: Sequence[Result]) -> Iterator[str]:
    yield name(target)
    for rfc, title in TITLES.items():
        found = [one for one in results if one.rule.rfc == rfc]
        if found:
            yield from ("", f"RFC {rfc}: {title}" if rfc else title)
        for outcome, rule, text, lines in ((one.outcome, one.rule, one.text, one.lines) for one in found):
            where = f"{rule.section:<6} {rule.level.value:<6}" if rfc else f"{rule.section}:"
            passed = outcome is Outcome.PASSED
            note = f" ({text})" if text and passed else ""
            yield f"  {_MARKS[outcome]:<6}  {rule.name:<18} {where} {rule.sentence}{note}"
            if not passed:
                yield f"          {'not tested: ' if outcome is Outcome.NOT_TESTED else ''}{text}"
            yield from (f"            {line}" for line in lines)
    yield from ("", summary(results))
    for level in Level:
        if broken := failures(results, level):
            yield f"  {level.value}: {', '.join(one.rule.name for one in broken)}"


def as_json(target: Target, results: Sequence[Result]) -> str:
    """For programs."""
    return json.dumps(
        {
            "server": f"{target.host}:{target.port}",
            "tls": target.tls,
            "user": target.user,
            "summary": summary(results),
            "checks": [
                {
                    "name": one.rule.name,
                    "rfc": one.rule.rfc or None,
                    "section": one.rule.section if one.rule.rfc else None,
                    "client": None if one.rule.rfc else one.rule.section,
                    "level": one.rule.level.value,
                    "sentence": one.rule.sentence,
                    "outcome": one.outcome.value,
                    "text": one.text,
                    "lines": list(one.lines),
                }
                for one in results
            ],
        },
        indent=2,
    )


def as_junit(target: Target, results: Sequence[Result]) -> bytes:
    """For CI: what fails a MUST is a failure, what fails otherwise is told with its case."""
    musts = failures(results)
    skipped = [one for one in results if one.outcome is Outcome.NOT_TESTED]
    suite = ElementTree.Element(
        "testsuite",
        name=f"pop3toy check {name(target)}",
        tests=str(len(results)),
        failures=str(len(musts)),
        errors="0",
        skipped=str(len(skipped)),
    )
    for one in results:
        source = one.rule.source.replace(", ", ".").replace(" ", "")
        case = ElementTree.SubElement(suite, "testcase", classname=source, name=one.rule.name)
        details = "\n".join((one.rule.sentence, *one.lines))
        if one in musts:
            ElementTree.SubElement(case, "failure", message=_xml(one.text)).text = _xml(details)
        elif one.outcome is Outcome.NOT_TESTED:
            ElementTree.SubElement(case, "skipped", message=_xml(one.text))
        elif one.outcome is Outcome.FAILED:
            said = f"{one.rule.level.value} failed: {one.text}\n{details}"
            ElementTree.SubElement(case, "system-out").text = _xml(said)
    octets: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return octets + b"\n"


def _xml(text: str) -> str:
    """Text without what XML has no place for."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)

"""The outcome as JUnit XML, which build servers show as tests."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from audit.errors import visible
from audit.gate.checks import FAILED, NOT_EVALUATED, Check
from audit.gate.evaluation import Evaluation

# What XML 1.0 does not allow even as a reference and `visible` leaves.
_NOT_IN_XML = re.compile("[\ufffe\uffff]")


def as_junit(evaluation: Evaluation) -> bytes:
    """The outcome as one suite with a case for each rule and class.

    A check that was not made is a skipped case. The elements and attributes are those of the
    schema of Jenkins' xUnit plugin, which GitLab and GitHub's actions read too.

    Args:
        evaluation: The outcome.

    Returns:
        UTF-8 with an XML declaration.
    """
    counts, facts = evaluation.counts, evaluation.run.manifest
    numbers = {
        "tests": str(len(evaluation.checks)),
        "failures": str(counts["failed"]),
        "errors": "0",
    }
    root = ElementTree.Element("testsuites", {"name": "audit gate", **numbers})
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        {
            "name": _text(f"audit gate: {facts['model']} on {facts['dataset']}"),
            **numbers,
            "skipped": str(counts["not evaluated"]),
            "time": "0",
            "timestamp": str(facts["finished"]).partition("+")[0],
        },
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name in ("run_id", "fingerprint", "split"):
        ElementTree.SubElement(
            properties, "property", {"name": name, "value": _text(str(facts[name]))}
        )
    for check in evaluation.checks:
        _add_case(suite, check)
    ElementTree.indent(root)
    content: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def _add_case(suite: ElementTree.Element, check: Check) -> None:
    name = check.name if check.scope == "class" else "the split"
    case = ElementTree.SubElement(
        suite,
        "testcase",
        {"classname": f"gate.{_text(check.rule)}", "name": _text(name), "time": "0"},
    )
    message = _text(check.message)
    if check.status == FAILED:
        failure = ElementTree.SubElement(
            case, "failure", {"message": message, "type": _text(check.rule)}
        )
        failure.text = message
    elif check.status == NOT_EVALUATED:
        ElementTree.SubElement(case, "skipped", {"message": message})


def _text(text: str) -> str:
    """A text without what XML cannot hold, control characters escaped."""
    return _NOT_IN_XML.sub("�", visible(text))

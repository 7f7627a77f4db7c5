"""Lists the skipped tests with their reasons. Fails if SR_SHARED is set and a reason is not allowed."""

import os
import re
import sys
from xml.etree import ElementTree

ALLOWED = [
    r"needs a CUDA device",
    r"tmpfs",  # mounting one needs privileges that not every machine grants
]
"""Reasons (regular expressions) for which a test may be skipped although SR_SHARED is set."""


def main(report: str) -> int:
    """Lists the skipped tests of a JUnit report. Returns 1 if a reason is not allowed, else 0."""
    not_allowed = 0
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        for skip in case.findall("skipped"):
            reason = skip.get("message") or ""
            allowed = "SR_SHARED" not in os.environ or any(re.search(pattern, reason) for pattern in ALLOWED)
            if not allowed:
                not_allowed += 1
            label = "skipped" if allowed else "NOT ALLOWED"
            print(f"{label}: {case.get('classname')}.{case.get('name')}: {reason}")
    return 1 if not_allowed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

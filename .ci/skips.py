"""Lists the skipped tests with their reasons; fails where the shared data are present and a reason is not allowed."""

import os
import re
import sys
from xml.etree import ElementTree

ALLOWED = [
    r"needs a CUDA device",
    r"tmpfs",  # mounting one needs privileges that a machine may not give
]
"""Reasons (regular expressions) for which a test may be skipped although SR_SHARED is set."""


def main(report: str) -> int:
    refused = 0
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        for skip in case.findall("skipped"):
            reason = skip.get("message") or ""
            fine = "SR_SHARED" not in os.environ or any(re.search(pattern, reason) for pattern in ALLOWED)
            refused += not fine
            print(f"{'skipped' if fine else 'NOT ALLOWED'}: {case.get('classname')}.{case.get('name')}: {reason}")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""No study is judged on images that it trains on, unless that is asked for; what was compared once is known after."""

import json
import logging
from dataclasses import asdict
from pathlib import Path

from sr_core.errors import SuiteError
from sr_core.leaks.overlap import RULE, Duplicate, Findings, Leak
from sr_core.process.whole_file import whole_file
from sr_core.store.manifest import fingerprint
from study.question.config import short_digest
from study.session.opening import ScannedImages, benchmark_manifest, compare_images

logger = logging.getLogger(__name__)

_SHOWN = 3
"""Pairs that a message names."""


def check_leaks(root: Path, found: ScannedImages, *, allowed: bool) -> tuple[Leak, ...]:
    """The pairs of a training and a validation or benchmark image that show the same; none unless `allowed`.

    Raises:
        SuiteError: there are such pairs; names the files.
        ImageError: an image cannot be read.
        OSError: the findings cannot be kept under the root.
    """
    findings = _findings(root, found)
    if findings.duplicates:
        again = [f"{duplicate.again} is {duplicate.first} again" for duplicate in findings.duplicates]
        logger.info("training images that are there twice: %s", _some(again))
    if findings.leaks:
        pairs = [
            f"{leak.training} trains and {leak.held_out} of {leak.set_name} is held out, yet they show the same "
            f"({leak.kind}: {leak.evidence})"
            for leak in findings.leaks
        ]
        if not allowed:
            raise SuiteError(f"{_some(pairs)}; take such images out of the training folder, or go on with --allow-leak")
        logger.warning("warning: %s; scores on these images are too good", _some(pairs))
    return findings.leaks


def _some(what: list[str]) -> str:
    more = f"; and {len(what) - _SHOWN} more" if len(what) > _SHOWN else ""
    return "; ".join(what[:_SHOWN]) + more


def _findings(root: Path, found: ScannedImages) -> Findings:
    """From the root, if the same images were compared by the same rule before."""
    benchmarks = {name: fingerprint(benchmark_manifest(found, name)) for name in found.images.benchmarks}
    path = root / "stores" / f".leaks-{short_digest([RULE, fingerprint(found.manifest), benchmarks])}.json"
    if (findings := _kept(path)) is None:
        findings = found.compared or compare_images(found.images, found.known)
        found.known.save()
        with whole_file(path) as file:
            file.write(json.dumps(asdict(findings), indent=1).encode())
    return findings


def _kept(path: Path) -> Findings | None:
    """What was kept there; None if there is nothing, or if it is damaged."""
    try:
        stored = json.loads(path.read_text("utf-8"))
        leaks, duplicates = stored["leaks"], stored["duplicates"]
        return Findings(tuple(Leak(**leak) for leak in leaks), tuple(Duplicate(**pair) for pair in duplicates))
    except (OSError, ValueError, TypeError, KeyError):
        return None

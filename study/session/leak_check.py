"""Checks that no training image also occurs in a held-out set; the findings are cached under the root."""

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

_MAX_PAIRS_SHOWN = 3
"""Pairs of images that a message names."""


def check_leaks(root: Path, scanned: ScannedImages, *, allowed: bool) -> tuple[Leak, ...]:
    """The pairs of a training image and a validation or benchmark image that show the same scene.

    Args:
        root: folder of all studies, where findings are cached.
        allowed: log a warning about such pairs instead of raising an error (--allow-leak).
    Raises:
        SuiteError: there are such pairs, and they are not allowed; the message names the files.
        ImageError: an image cannot be read.
        OSError: the findings cannot be written under the root.
    """
    findings = _findings(root, scanned)
    if findings.duplicates:
        copies = [f"{duplicate.again} is {duplicate.first} again" for duplicate in findings.duplicates]
        logger.info("duplicate training images: %s", _some(copies))
    if findings.leaks:
        pairs = [
            f"training image {leak.training} and held-out image {leak.held_out} of {leak.set_name} show the same "
            f"({leak.kind}: {leak.evidence})"
            for leak in findings.leaks
        ]
        if not allowed:
            raise SuiteError(
                f"{_some(pairs)}; remove these images from the training folder, or continue with --allow-leak"
            )
        logger.warning("warning: %s; scores on these images will be too high", _some(pairs))
    return findings.leaks


def _some(descriptions: list[str]) -> str:
    """The first descriptions in one line, and how many more there are."""
    hidden = len(descriptions) - _MAX_PAIRS_SHOWN
    more = f"; and {hidden} more" if hidden > 0 else ""
    return "; ".join(descriptions[:_MAX_PAIRS_SHOWN]) + more


def _findings(root: Path, scanned: ScannedImages) -> Findings:
    """The findings for these images, from the cache if the same images were compared by the same rule before."""
    benchmarks = {name: fingerprint(benchmark_manifest(scanned, name)) for name in scanned.images.benchmarks}
    path = root / "stores" / f".leaks-{short_digest([RULE, fingerprint(scanned.manifest), benchmarks])}.json"
    findings = _cached(path)
    if findings is None:
        findings = scanned.compared or compare_images(scanned.images, scanned.known)
        scanned.known.save()
        with whole_file(path) as file:
            file.write(json.dumps(asdict(findings), indent=1).encode())
    return findings


def _cached(path: Path) -> Findings | None:
    """The findings in this file; None if the file is missing or damaged."""
    try:
        stored = json.loads(path.read_text("utf-8"))
        leaks = tuple(Leak(**leak) for leak in stored["leaks"])
        duplicates = tuple(Duplicate(**pair) for pair in stored["duplicates"])
        return Findings(leaks, duplicates)
    except (OSError, ValueError, TypeError, KeyError):
        return None

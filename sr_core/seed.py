"""Seeds by name: one root seed per trial, and every consumer of randomness derives its own from it."""

import hashlib


def child_seed(root: int, *path: str | int) -> int:
    """Seed in [0, 2**63) for one named consumer, e.g. child_seed(7, "data", "patches").

    A new consumer takes a new name and leaves every other stream as it was.
    """
    digest = hashlib.blake2b(repr((root, *path)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1

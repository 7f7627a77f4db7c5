"""Seeds by name. A trial has one root seed, and each consumer of randomness derives its own seed from it."""

import hashlib


def child_seed(root: int, *path: str | int) -> int:
    """The seed in [0, 2**63) of one named consumer, e.g. child_seed(7, "data", "patches").

    A new consumer takes a new name and does not change any other stream.
    """
    digest = hashlib.blake2b(repr((root, *path)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1

"""Tells file systems of this machine alone from shared ones. SQLite's write-ahead log is safe only on the former."""

import ctypes
import os
import sys
from pathlib import Path

_LOCAL = {
    0xEF53: "ext2, ext3, ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x01021994: "tmpfs",
    0x858458F6: "ramfs",
    0x794C7630: "overlay",
    0x2FC12FC1: "zfs",
    0xF2F52010: "f2fs",
    0xCA451A4E: "bcachefs",
    0x3153464A: "jfs",
    0x52654973: "reiserfs",
    0xF15F: "ecryptfs",
}
"""Local file systems by the `f_type` of statfs(2)."""


def is_local(folder: Path) -> bool:
    """Returns True if no other machine can mount the folder's file system, False if one can or that is not known."""
    return file_system(folder) in _LOCAL


def file_system(folder: Path) -> int | None:
    """Returns the magic number of the folder's file system; None if the operating system does not give one."""
    if sys.platform != "linux":
        return None
    statfs = ctypes.create_string_buffer(512)  # struct statfs has 120 bytes; its first member is f_type
    if ctypes.CDLL(None, use_errno=True).statfs(os.fsencode(folder), statfs) != 0:
        return None
    kind = ctypes.cast(statfs, ctypes.POINTER(ctypes.c_long)).contents.value
    return int(kind) & 0xFFFFFFFF

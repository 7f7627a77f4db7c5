"""Image files without their metadata, so that nothing but pixels decides whether the pixels can be read.

Text, colour profiles, EXIF and XMP of any size and in any state reach no decoder. What is wanted of them (orientation,
profile) is taken out here if it is sane, and left out otherwise.
"""

import math
import struct
import zlib
from collections.abc import Iterator, Mapping

Metadata = Mapping[str, bytes | str]
"""Named as in the `info` of Pillow's images: "exif", "xmp", "XML:com.adobe.xmp", "icc_profile", …"""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"

_MAX_METADATA_BYTES = 16 << 20
"""After decompression; a larger profile or text is left out."""

_PNG_NEEDED = frozenset({b"tRNS", b"acTL", b"fcTL", b"fdAT"})
"""With all critical chunks: transparency, and what tells an animation."""
_PNG_HARMLESS = frozenset(
    b"bKGD cHRM cICP cLLI cLLi caNv dSIG eXIf gAMA hIST iCCP iTXt mDCV mDCv oFFs orNT pCAL pHYs sBIT sCAL sPLT sRGB "
    b"sTER tEXt tIME tXMP vpAg zTXt zxIf".split()
)
"""Chunks whose damage loses no pixel. Damage of an unknown chunk may be that of a needed one's name."""
_PNG_XMP, _PNG_EXIF = b"XML:com.adobe.xmp", b"Raw profile type exif"
"""Text chunks that may hold an orientation."""

_SOS, _APP0, _APP1, _APP2, _APP14, _APP15, _COM = 0xDA, 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xFE  # JPEG markers
_COLOUR_SEGMENTS = {_APP0: 14, _APP14: 12}
"""JFIF and Adobe segments, and the bytes from which on libjpeg-turbo takes notice of them."""
_ICC_HEAD = 14
_EXIF, _XMP, _ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"


def without_metadata(data: bytes) -> tuple[bytes, Metadata]:
    """The file as it is to be decoded, and what was taken out of it and may be of use.

    A PNG or JPEG file loses its metadata. Other formats come back as they are: their decoders do not trip over it.

    Raises:
        ValueError: a PNG file is damaged in a part that its pixels need.
    """
    if data.startswith(PNG_SIGNATURE):
        return _png(data)
    if data.startswith(JPEG_SIGNATURE):
        return _jpeg(data)
    return data, {}


def _png(data: bytes) -> tuple[bytes, Metadata]:
    """Checks each needed chunk against its checksum; Pillow skips those of the pixels."""
    kept = [PNG_SIGNATURE]
    found: dict[str, bytes | str] = {}
    for at, kind, length, intact in _png_chunks(data):
        body = memoryview(data)[at + 8 : at + 8 + length]
        needed = kind[:1].isupper() or kind in _PNG_NEEDED
        if not intact and (needed or kind not in _PNG_HARMLESS or _holds_needed_chunk(body)):
            raise ValueError(f"checksum of its chunk {kind!r} at byte {at}")
        if needed:
            kept.append(data[at : at + 12 + length])
        elif intact:
            found.update(_of_chunk(kind, body))
    return b"".join(kept), found


def _png_chunks(data: bytes) -> Iterator[tuple[int, bytes, int, bool]]:
    """(where it begins, kind, length of its content, whether its checksum is right) of each chunk, IEND last."""
    at, kind = len(PNG_SIGNATURE), b""
    try:
        while kind != b"IEND":
            length, kind = struct.unpack_from(">I4s", data, at)
            (checksum,) = struct.unpack_from(">I", data, at + 8 + length)
            yield at, kind, length, zlib.crc32(memoryview(data)[at + 4 : at + 8 + length]) == checksum
            at += 12 + length
    except struct.error as exc:
        raise ValueError(f"it ends within the chunk at byte {at}") from exc


def _holds_needed_chunk(body: memoryview) -> bool:
    """Whether a damaged chunk has swallowed a needed one, because its length is what is wrong of it."""
    content = bytes(body)
    for kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND", *_PNG_NEEDED):
        at = content.find(kind)
        while at >= 0:
            if at >= 4 and _is_chunk(content, at - 4):
                return True
            at = content.find(kind, at + 1)
    return False


def _is_chunk(content: bytes, at: int) -> bool:
    (length,) = struct.unpack_from(">I", content, at)
    if at + 8 + length > len(content):
        return False
    tail = content[at + 8 + length : at + 12 + length]  # the last checksum may be the damaged chunk's own
    return len(tail) < 4 or zlib.crc32(content[at + 4 : at + 8 + length]) == int.from_bytes(tail, "big")


def _of_chunk(kind: bytes, body: memoryview) -> Metadata:
    """What an ancillary chunk says that is of use here."""
    if kind == b"eXIf":
        return {"exif": _EXIF + bytes(body)}
    if kind not in (b"iCCP", b"tEXt", b"zTXt", b"iTXt"):
        return {}
    name, _, rest = bytes(body).partition(b"\0")
    if kind == b"iCCP":
        profile = _decompressed(rest[1:])
        return {"icc_profile": profile} if profile else {}
    if name not in (_PNG_XMP, _PNG_EXIF):
        return {}
    text = _text(kind, rest)
    return {name.decode(): text} if text else {}


def _text(kind: bytes, rest: bytes) -> str:
    """The content of a text chunk after its keyword; empty if it is damaged."""
    if kind == b"tEXt":
        return rest.decode("latin-1")
    if kind == b"zTXt":
        return _decompressed(rest[1:]).decode("latin-1")
    *_, content = rest[2:].split(b"\0", 2)  # language, translated keyword, text
    is_compressed = rest[:1] == b"\1"
    return (_decompressed(content) if is_compressed else content).decode("utf-8", "replace")


def _decompressed(content: bytes) -> bytes:
    """Nothing if it is damaged or too large."""
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(content, _MAX_METADATA_BYTES)
    except zlib.error:
        return b""
    return plain if stream.eof else b""


def _least_of_use(marker: int) -> float:
    """How much a JPEG segment must hold to say something of its pixels; infinite if it never does."""
    if _APP0 <= marker <= _APP15 or marker == _COM:
        return _COLOUR_SEGMENTS.get(marker, math.inf)
    return 0


def _jpeg(data: bytes) -> tuple[bytes, Metadata]:
    """Leaves out application segments and comments, but for those by which libjpeg-turbo knows the colours."""
    kept = [data[:2]]
    exif, profile = b"", []
    found: dict[str, bytes | str] = {}
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in (0x00, 0xFF, _SOS):
        marker, length = struct.unpack_from(">xBH", data, at)
        end = at + 2 + max(2, length)
        body = data[at + 4 : end]
        if len(body) >= _least_of_use(marker):
            kept.append(data[at:end])
        elif marker == _APP1 and body.startswith(_EXIF):
            exif += body if not exif else body[len(_EXIF) :]
        elif marker == _APP1 and body.startswith(_XMP):
            found["xmp"] = body[len(_XMP) :]
        elif marker == _APP2 and body.startswith(_ICC) and len(body) > _ICC_HEAD:
            profile.append(body)
        at = end
    kept.append(data[at:])
    profile.sort()  # by their sequence numbers, of one byte
    if profile and profile[0][_ICC_HEAD - 1] == len(profile):
        found["icc_profile"] = b"".join(part[_ICC_HEAD:] for part in profile)
    if exif:
        found["exif"] = exif
    return b"".join(kept), found

"""Removal of metadata from image files, so that damaged metadata cannot prevent the reading of pixels.

Decoders never see text, colour profiles, EXIF and XMP. Orientation and profile are extracted here if they are valid,
and ignored otherwise.
"""

import math
import struct
import zlib
from collections.abc import Iterator, Mapping

Metadata = Mapping[str, bytes | str]
"""Metadata by the names in the `info` of Pillow's images: "exif", "xmp", "XML:com.adobe.xmp", "icc_profile", …"""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"

_MAX_METADATA_BYTES = 16 << 20
"""Maximum size after decompression. A larger profile or text is ignored."""

_PNG_NEEDED = frozenset({b"tRNS", b"acTL", b"fcTL", b"fdAT"})
"""Needed chunks in addition to all critical ones: transparency, and the marks of an animation."""
_PNG_HARMLESS = frozenset(
    b"bKGD cHRM cICP cLLI cLLi caNv dSIG eXIf gAMA hIST iCCP iTXt mDCV mDCv oFFs orNT pCAL pHYs sBIT sCAL sPLT sRGB "
    b"sTER tEXt tIME tXMP vpAg zTXt zxIf".split()
)
"""Chunks whose damage affects no pixel. A damaged unknown chunk may be a needed chunk with a damaged name."""
_PNG_XMP = b"XML:com.adobe.xmp"
_PNG_EXIF = b"Raw profile type exif"
"""Keywords of the text chunks that may hold an orientation."""

# JPEG markers
_SOS = 0xDA
_APP0 = 0xE0
_APP1 = 0xE1
_APP2 = 0xE2
_APP14 = 0xEE
_APP15 = 0xEF
_COM = 0xFE
_COLOUR_SEGMENTS = {_APP0: 14, _APP14: 12}
"""JFIF and Adobe segments, each with the minimum number of bytes for which libjpeg-turbo uses it."""
_ICC_HEAD_BYTES = 14
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_ICC = b"ICC_PROFILE\0"


def without_metadata(data: bytes) -> tuple[bytes, Metadata]:
    """The file content for the decoder, and the useful metadata that was removed from it.

    Only PNG and JPEG files lose their metadata. The decoders of other formats are not affected by it.

    Raises:
        ValueError: a PNG file is damaged in a part that its pixels need.
    """
    if data.startswith(PNG_SIGNATURE):
        return _png(data)
    if data.startswith(JPEG_SIGNATURE):
        return _jpeg(data)
    return data, {}


def _png(data: bytes) -> tuple[bytes, Metadata]:
    """As `without_metadata`. Compares each needed chunk with its checksum, because Pillow does not for pixels."""
    chunks = [PNG_SIGNATURE]
    metadata: dict[str, bytes | str] = {}
    for at, kind, length, intact in _png_chunks(data):
        body = memoryview(data)[at + 8 : at + 8 + length]
        needed = kind[:1].isupper() or kind in _PNG_NEEDED
        if not intact and (needed or kind not in _PNG_HARMLESS or _holds_needed_chunk(body)):
            raise ValueError(f"checksum of its chunk {kind!r} at byte {at}")
        if needed:
            chunks.append(data[at : at + 12 + length])
        elif intact:
            metadata.update(_metadata_in(kind, body))
    return b"".join(chunks), metadata


def _png_chunks(data: bytes) -> Iterator[tuple[int, bytes, int, bool]]:
    """Yield (position, kind, length of the content, True if the checksum is right) of each chunk, up to IEND."""
    at = len(PNG_SIGNATURE)
    kind = b""
    try:
        while kind != b"IEND":
            length, kind = struct.unpack_from(">I4s", data, at)
            (checksum,) = struct.unpack_from(">I", data, at + 8 + length)
            yield at, kind, length, zlib.crc32(memoryview(data)[at + 4 : at + 8 + length]) == checksum
            at += 12 + length
    except struct.error as exc:
        raise ValueError(f"it ends within the chunk at byte {at}") from exc


def _holds_needed_chunk(body: memoryview) -> bool:
    """True if a damaged chunk contains a needed one, because its length is wrong."""
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


def _metadata_in(kind: bytes, body: memoryview) -> Metadata:
    """The useful metadata in an ancillary chunk."""
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
    """The decompressed content; empty if it is damaged or too large."""
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(content, _MAX_METADATA_BYTES)
    except zlib.error:
        return b""
    return plain if stream.eof else b""


def _min_needed_bytes(marker: int) -> float:
    """The minimum size in bytes of a JPEG segment that affects the pixels; infinite for metadata."""
    if _APP0 <= marker <= _APP15 or marker == _COM:
        return _COLOUR_SEGMENTS.get(marker, math.inf)
    return 0


def _jpeg(data: bytes) -> tuple[bytes, Metadata]:
    """As `without_metadata`. Removes application segments and comments, except those that identify the colours."""
    segments = [data[:2]]
    exif = b""
    profile = []
    metadata: dict[str, bytes | str] = {}
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in (0x00, 0xFF, _SOS):
        marker, length = struct.unpack_from(">xBH", data, at)
        end = at + 2 + max(2, length)
        body = data[at + 4 : end]
        if len(body) >= _min_needed_bytes(marker):
            segments.append(data[at:end])
        elif marker == _APP1 and body.startswith(_EXIF):
            exif += body if not exif else body[len(_EXIF) :]
        elif marker == _APP1 and body.startswith(_XMP):
            metadata["xmp"] = body[len(_XMP) :]
        elif marker == _APP2 and body.startswith(_ICC) and len(body) > _ICC_HEAD_BYTES:
            profile.append(body)
        at = end
    segments.append(data[at:])

    profile.sort()  # by their sequence numbers of one byte
    if profile and profile[0][_ICC_HEAD_BYTES - 1] == len(profile):
        metadata["icc_profile"] = b"".join(part[_ICC_HEAD_BYTES:] for part in profile)
    if exif:
        metadata["exif"] = exif
    return b"".join(segments), metadata

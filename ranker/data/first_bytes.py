"""What the first bytes of a file of text say against reading it as such."""

import codecs

from ranker.data.errors import DataError

# https://en.wikipedia.org/wiki/List_of_file_signatures
_PACKED = {
    b"\x1f\x8b": "is packed with gzip; call it FILE.gz",
    b"\x1f\x9d": "is packed with compress; unpack it (gzip -d < FILE > NEW)",
    b"BZh": "is packed with bzip2; unpack it (bzip2 -d FILE)",
    b"\xfd7zXZ": "is packed with xz; unpack it (xz -d FILE)",
    b"\x28\xb5\x2f\xfd": "is packed with zstd; unpack it (zstd -d FILE)",
    b"PK\x03\x04": "is a zip; unpack it, or name the zip itself as the source",
    codecs.BOM_UTF16_LE: "is UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8 FILE)",
    codecs.BOM_UTF16_BE: "is UTF-16; save it as UTF-8 (iconv -f UTF-16 -t UTF-8 FILE)",
}


def packed_as(begin: bytes) -> str | None:
    """What a file is that begins so, and what to do about it; None where it may be text."""
    return next((problem for mark, problem in _PACKED.items() if begin.startswith(mark)), None)


def without_mark(block: bytes, where: str) -> bytes:
    """The first block of a file, without a byte order mark.

    Raises:
        DataError: where it is no text, or where its lines end with a carriage return alone.
    """
    if problem := packed_as(block):
        raise DataError(f"{where}: {problem}")
    if b"\n" not in block and b"\r" in block.rstrip(b"\r"):
        raise DataError(
            f"{where}: its lines end with a carriage return alone; write line feeds (tr '\\r' '\\n' < FILE)"
        )
    return block.removeprefix(codecs.BOM_UTF8)

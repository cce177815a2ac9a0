"""The JSON that stands before each clip's payloads in a tar, and the seal that tells whether either has changed.

The seal is the last field, ``"crc32":"89abcdef"``: the CRC-32 of the JSON, with eight zeros in its place, followed by
the payloads in the order of the tar. It is as long as any other, so the plan of a tar need not know it.
"""

import json
import re
import zlib
from collections.abc import Iterable, Mapping

MAX_NOTE_BYTES = 64 << 20
"""More than any clip needs: a frame takes about six bytes."""
_BLANK = b"00000000"
_END = re.compile(rb'"crc32":"([0-9a-f]{8})"\}\Z')


def write_note(value: Mapping[str, object]) -> bytes:
    """The JSON of a clip, not yet sealed."""
    text = json.dumps({**value, "crc32": _BLANK.decode()}, ensure_ascii=False, separators=(",", ":"))
    return text.encode()


def seal(note: bytes, payloads: Iterable[bytes | memoryview]) -> bytes:
    """The JSON with the checksum of itself and of ``payloads``."""
    return note[:-10] + b"%08x" % _checksum(note, payloads) + note[-2:]


def open_note(note: bytes, payloads: Iterable[bytes | memoryview]) -> dict[str, object]:
    """The fields of a sealed JSON.

    Raises:
        ValueError: The JSON or a payload is not what was sealed.
    """
    sealed = _END.search(note)
    if sealed is None or int(sealed[1], 16) != _checksum(note, payloads):
        raise ValueError("its bytes have changed since it was packed")
    try:
        value = json.loads(note)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("its JSON is no object")
    return value


def _checksum(note: bytes, payloads: Iterable[bytes | memoryview]) -> int:
    crc = zlib.crc32(note[-2:], zlib.crc32(_BLANK, zlib.crc32(memoryview(note)[:-10])))
    for payload in payloads:
        crc = zlib.crc32(payload, crc)
    return crc

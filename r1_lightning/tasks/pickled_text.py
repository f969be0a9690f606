"""The one string inside a pickle, taken out without unpickling.

LiveCodeBench publishes its hidden tests as base64 of zlib of a pickle of a string of JSON. Unpickling runs what the pickle says,
which may be any program. A pickle of a string, however, is a few opcodes: where the protocol starts, the string, a note to remember
it, the end. `pickletools` (of the standard library) lists opcodes and runs none, so the string can be read off the list, and a
pickle with any other opcode is refused.
"""

from __future__ import annotations

import base64
import binascii
import pickletools
import zlib

STRING_OPCODES = frozenset({"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"})
QUIET_OPCODES = frozenset({"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP"})
MAX_BYTES = 2**30  # of the unpacked pickle: a small archive may unpack to anything


def packed_text(packed: str, max_bytes: int = MAX_BYTES) -> str:
    """The string in base64 of zlib of a pickle. Raises `ValueError` for anything that is not exactly that."""
    try:
        compressed = base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not base64 ({error})") from error
    unpacking = zlib.decompressobj()
    try:
        content = unpacking.decompress(compressed, max_bytes)
    except zlib.error as error:
        raise ValueError(f"not a zlib archive ({error})") from error
    if not unpacking.eof or unpacking.unused_data:
        raise ValueError(f"the archive is cut off, has more behind it, or unpacks to more than {max_bytes} bytes")
    return pickled_text(content)


def pickled_text(content: bytes) -> str:
    """The string that a pickle consists of. Raises `ValueError` where it holds anything else; nothing of it is run."""
    texts, end = [], 0
    try:
        for opcode, argument, position in pickletools.genops(content):
            if opcode.name in STRING_OPCODES:
                texts.append(argument)
            elif opcode.name not in QUIET_OPCODES:
                raise ValueError(f"a pickle that holds more than a string ({opcode.name}) is not read")
            end = position or 0
    except UnicodeDecodeError as error:
        raise ValueError("the pickled string is not valid Unicode") from error
    if len(texts) != 1 or end != len(content) - 1:
        raise ValueError("a pickle of exactly one string is needed")
    return str(texts[0])

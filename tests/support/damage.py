"""What may become of a file: emptied, cut off, replaced, or one byte of it changed."""

from __future__ import annotations


def damaged(whole: bytes) -> dict[str, bytes]:
    """The bytes of a file that were `whole`, by the kind of damage."""
    middle = len(whole) // 2
    return {
        "empty": b"",
        "a half": whole[:middle],
        "all but the last byte": whole[:-1],
        "one byte": whole[:1],
        "another file": b"not a checkpoint at all\n" * 50,
        "a flipped byte": whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :],
    }

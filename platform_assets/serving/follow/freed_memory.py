"""Ask the C library how much memory it has given out, and have it return what is free to the system."""

from __future__ import annotations

import contextlib
import ctypes


class _Allocated(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks"),
            "keepcost",
        )
    ]


def allocated() -> int | None:
    """Return the bytes that C's heap has given out; None where the C library does not say (glibc 2.33 and newer do).

    A graph's memory is there. What the process has mapped would count pages that earlier work left behind.
    """
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return None
    mallinfo.restype = _Allocated
    state = mallinfo()
    return int(state.uordblks + state.hblkhd)


def trim() -> None:
    """Give freed memory back to the system, which glibc does not do by itself."""
    with contextlib.suppress(AttributeError):  # musl and macOS do not have it
        ctypes.CDLL(None).malloc_trim(0)

"""Make msgspec know the project's types before threads share them.

msgspec 0.22 works a type out when it is first used, and publishes it before it is complete: a thread that uses the type
meanwhile reads a null pointer, and the process ends with SIGSEGV. Sensors are evaluated in threads of one code server.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec


def prepare(*packages: str) -> int:
    """Have msgspec work out all types that are loaded now, of these packages, in this thread; return how many.

    Args:
        packages: their top names, such as `platform_assets`.
    """
    types = {kind for kind in _below(msgspec.Struct) if kind.__module__.partition(".")[0] in packages}
    for kind in types:
        msgspec.json.Decoder(kind)
    return len(types)


def _below(kind: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)

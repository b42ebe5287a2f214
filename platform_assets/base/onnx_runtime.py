"""Import ONNX Runtime with its telemetry off, in a process that loads a graph and in no other."""

from __future__ import annotations

import os
from typing import Any


def library() -> Any:
    """Return the module `onnxruntime`."""
    # Read on import. Without it, version 1.32 writes to the home folder and resolves the address of its makers.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime

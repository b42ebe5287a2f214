"""The client of the documentation, as a reader would paste it."""

from __future__ import annotations

import re
from typing import Any

from platform_assets.settings import REPOSITORY


def client_type() -> Any:
    """Return its class."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (REPOSITORY / "docs/operate.md").read_text(), re.S | re.M)
    (code,) = (block for block in blocks if "class Client" in block)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/operate.md", "exec"), names)
    return names["Client"]

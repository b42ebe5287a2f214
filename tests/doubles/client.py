"""The client of the documentation, as a reader would paste it."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from platform_assets.base.settings import REPOSITORY


@contextlib.contextmanager
def client_of(address: str, **options: Any) -> Iterator[Any]:
    blocks = re.findall(r"^```python\n(.*?)^```$", (REPOSITORY / "docs/serve.md").read_text(), re.S | re.M)
    (code,) = (block for block in blocks if "class Client" in block)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/serve.md", "exec"), names)
    client = names["Client"](address, **options)
    with client._http:
        yield client

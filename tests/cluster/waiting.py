"""Wait for conditions, and report the state when they time out."""

import time
from collections.abc import Callable

POLL_S = 0.2


def wait_until(
    is_true: Callable[[], bool], patience_s: float, condition: str, details: Callable[[], str] = lambda: ""
) -> None:
    """Poll until a condition is true.

    Raises:
        TimeoutError: with the condition and `details()` if it is not true after `patience_s` seconds.
    """
    deadline = time.monotonic() + patience_s
    while not is_true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {patience_s:g} s in vain until {condition}\n{details()}")
        time.sleep(POLL_S)

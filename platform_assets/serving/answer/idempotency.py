"""Give a retried request its first answer.

The answers that this process gave under idempotency keys; nothing is shared between processes. What a key guarantees:

- In one process a repeated key gets the first answer, id and result, and is not logged again, as long as it is among
  the newest `SIZE` keys. The same key with another request is refused.
- A retry may reach another replica, or a restarted one. The prediction id is a digest of the key and the row, so it is
  the same everywhere; the result is computed again, and equal unless a release happened in between. The log then has
  the id twice, and its readers count it once.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import msgspec

from platform_assets.serving.answer.requests import Refused

if TYPE_CHECKING:
    from platform_assets.serving.answer.answer_records import Answer
    from platform_assets.serving.answer.requests import Row

SIZE = 10_000


def keyed_id(row: Row[Any], caller: str | None = None) -> str:
    """Return the prediction id of a row with an idempotency key: a digest of the caller and of everything it sent."""
    sent = msgspec.json.encode(row)
    return hashlib.blake2b(sent if caller is None else sent + caller.encode(), digest_size=16).hexdigest()


class Answers:
    """The newest answers by idempotency key; the oldest are dropped first."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._answers: OrderedDict[tuple[str | None, str], Answer] = OrderedDict()

    def find(self, key: str, prediction_id: str, field: str, caller: str | None = None) -> Answer | None:
        """Return the first answer of a caller's key, or None. Callers do not see each other's keys.

        Raises:
            Refused: the key was used before with another request; `field` is its path.
        """
        answer = self._answers.get((caller, key))
        if answer is not None and answer.prediction_id != prediction_id:
            raise Refused(
                422, f"{field} was used before with another request; expected a new key for each request.", field
            )
        return answer

    def add(self, key: str, answer: Answer, caller: str | None = None) -> None:
        """Store the answer of a caller's key."""
        self._answers[caller, key] = answer
        if len(self._answers) > self._size:
            self._answers.popitem(last=False)

    def forget(self, key: str | None, caller: str | None = None) -> None:
        """Drop the answer of a caller's key."""
        if key is not None:
            self._answers.pop((caller, key), None)

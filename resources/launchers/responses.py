"""Say what a response of the Kubernetes API means: an answer, a refusal, or nothing to go by. One table, pure.

Belongs here: what is final, and what is asked again. Does not belong here: asking (`api.py`), what an object shows
(`pods.py`), or what follows for a step (`kubernetes.py`).

A refusal is the API's only when its body is an object of kind Status: on the way there are proxies and balancers, whose
pages, whatever their number, say nothing about a pod.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from platform_assets.problems import Problem
from platform_assets.records.values import member

Meaning = Literal["answer", "absent", "exists", "full", "soon", "again", "unauthorized", "refused"]
"""What a response means:

- `answer`: the object that was asked for; `absent`: the API does not have it; `exists`: one of that name is there.
- `full`: a quota is used up, and others may free it.
- `soon`: what a new namespace or quota lacks for a second; when it goes on, a refusal.
- `again`: it passes, or says nothing about the request; asked again for as long as patience lasts, and never final.
- `unauthorized`: the token is not taken; a new one may be in its file already.
- `refused`: for good.
"""

SOON = re.compile(
    r"error looking up service account|status unknown for quota|not yet ready to handle request", re.IGNORECASE
)
FULL = re.compile(r"exceeded quota")


class ApiTrouble(Problem):
    """The API refused a request, or did not answer for longer than patience lasts.

    Attributes:
        status: HTTP's; 0 when nothing answered.
        reason: the API's own word for it, such as `Forbidden`.
        said: its sentence.
        meaning: of the last response; `refused` also for what should have passed soon and did not.
        may_be_done: whether the request may have been carried out all the same, by one of its tries.
    """

    def __init__(
        self, status: int, reason: str, said: str, meaning: Meaning = "refused", *, may_be_done: bool = False
    ) -> None:
        self.status = status
        self.reason = reason
        self.said = said
        self.meaning: Meaning = meaning
        self.may_be_done = may_be_done
        super().__init__(f"{status} {reason}: {said}".rstrip(": ") if status else said)


@dataclass(frozen=True, kw_only=True)
class Response:
    """A response, as far as it can be read.

    Attributes:
        status: HTTP's; 0: none came, or only a part of one.
        expected: kinds that would be the answer.
        body: the object in it; None: it holds none.
        text: the beginning of what it holds instead.
    """

    status: int
    expected: tuple[str, ...]
    body: object
    text: str = ""

    @property
    def kind(self) -> str:
        """Of the object."""
        return str(member(self.body, "kind") or "")

    @property
    def is_success(self) -> bool:
        """Whether HTTP says so."""
        return 200 <= self.status <= 299

    @property
    def is_own(self) -> bool:
        """Whether the API itself refuses, not something on the way to it."""
        return self.kind == "Status"

    @property
    def reason(self) -> str:
        """The API's own word; empty when it gives none, as for the refusals of many webhooks."""
        return str(member(self.body, "reason") or "")

    @property
    def said(self) -> str:
        """Its sentence, or what stands in the place of one."""
        return str(member(self.body, "message") or self.text)

    @property
    def meaning(self) -> Meaning:
        """What it means: the first row of the table that is so."""
        return next(meaning for _, is_so, meaning in TABLE if is_so(self))

    @property
    def may_be_done(self) -> bool:
        """Whether the request may have been carried out although this is no answer to it."""
        return self.meaning == "again" and not (self.is_own and self.status in (409, 429))


def read(status: int, text: bytes | str | None, expected: tuple[str, ...]) -> Response:
    """Return a response from its status and body, whatever that holds."""
    plain = text.decode("utf-8", errors="replace") if isinstance(text, bytes) else text or ""
    try:
        found = json.loads(plain)
    except (ValueError, RecursionError):
        found = None
    body = found if isinstance(found, dict) else None
    return Response(status=status, expected=expected, body=body, text="" if body else plain[:500])


def _is_forbidden(it: Response, words: re.Pattern[str]) -> bool:
    return it.status == 403 and words.search(it.said) is not None


TABLE: tuple[tuple[str, Callable[[Response], bool], Meaning], ...] = (
    ("a success with the object", lambda it: it.is_success and it.kind in it.expected, "answer"),
    ("a success with anything else: a page, a part of an object", lambda it: it.is_success, "again"),
    ("401 of anybody", lambda it: it.status == 401, "unauthorized"),
    ("a failure that the API does not own up to", lambda it: not it.is_own, "again"),
    ("408, 425, 429 and 5xx", lambda it: it.status in (408, 425, 429) or not 400 <= it.status <= 499, "again"),
    ("409 AlreadyExists", lambda it: it.status == 409 and it.reason == "AlreadyExists", "exists"),
    ("409 of any other reason: a quota is being counted", lambda it: it.status == 409, "again"),
    ("404 NotFound", lambda it: it.status == 404 and it.reason == "NotFound", "absent"),
    ("404 of no reason", lambda it: it.status == 404 and not it.reason, "again"),
    ("403 of a quota that is used up", lambda it: _is_forbidden(it, FULL), "full"),
    ("403 for what is not there yet", lambda it: _is_forbidden(it, SOON), "soon"),
    ("any other refusal of the API", lambda it: it.is_own, "refused"),
)
"""What a response is, how it is told, and what it means; the first row that is so counts."""

"""Interpret a response of the Kubernetes API: an answer, a refusal, or neither. One table, pure.

A refusal comes from the API only if its body is an object of kind Status. Proxies and load balancers on the way answer
too, and their pages, whatever the status code, say nothing about a pod.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from platform_assets.base.problems import Problem
from platform_assets.store.records.values import member

Meaning = Literal["answer", "absent", "exists", "changed", "full", "soon", "again", "unauthorized", "refused"]
"""What a response means:

- `answer`: the requested object; `absent`: the API does not have it; `exists`: there is one of that name.
- `changed`: the object is not in the version that the request is for.
- `full`: a quota is used up; others may free it.
- `soon`: what a new namespace or quota lacks for a second; if it persists, a refusal.
- `again`: temporary, or says nothing about the request; retried until the patience is used up, and never final.
- `unauthorized`: the token was rejected; a new one may be in its file already.
- `refused`: final.
"""

SOON = re.compile(
    r"error looking up service account|status unknown for quota|not yet ready to handle request", re.IGNORECASE
)
FULL = re.compile(r"exceeded quota")


class ApiTrouble(Problem):
    """The API refused a request, or was unavailable for too long.

    Attributes:
        status: HTTP's; 0 if nothing answered.
        reason: the API's own, such as `Forbidden`.
        message: the API's own.
        meaning: of the last response; also `refused` for a `soon` that persisted.
        may_be_done: whether one of the tries may have been carried out nevertheless.
    """

    def __init__(
        self, status: int, reason: str, message: str, meaning: Meaning = "refused", *, may_be_done: bool = False
    ) -> None:
        self.status = status
        self.reason = reason
        self.message = message
        self.meaning: Meaning = meaning
        self.may_be_done = may_be_done
        super().__init__(f"{status} {reason}: {message}".rstrip(": ") if status else message)


@dataclass(frozen=True, kw_only=True)
class Response:
    """A response, as far as it can be read.

    Attributes:
        status: HTTP's; 0 if there was none, or only a part of one.
        expected: kinds that count as the answer.
        body: its JSON object; None if it has none.
        text: the beginning of any other body.
    """

    status: int
    expected: tuple[str, ...]
    body: object
    text: str = ""

    @property
    def kind(self) -> str:
        """The kind of the object."""
        return str(member(self.body, "kind") or "")

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status <= 299

    @property
    def is_own(self) -> bool:
        """Whether the API itself refused, not something in between."""
        return self.kind == "Status"

    @property
    def reason(self) -> str:
        """The API's reason; empty if it gives none, as many webhooks do."""
        return str(member(self.body, "reason") or "")

    @property
    def message(self) -> str:
        """The API's message, otherwise the body's text."""
        return str(member(self.body, "message") or self.text)

    @property
    def meaning(self) -> Meaning:
        """What it means: the first row of the table that matches."""
        return next(meaning for matches, meaning in TABLE if matches(self))

    @property
    def may_be_done(self) -> bool:
        """Whether the request may have been carried out although this does not answer it."""
        # A dead webhook gives a 500 of the API's own: nothing was created.
        is_refused = self.status in (409, 429) or "failed calling webhook" in self.message
        return self.meaning == "again" and not (self.is_own and is_refused)


def describe(error: BaseException) -> str:
    """Say why a request had no answer, for a sentence: the client's exceptions name objects and addresses of memory."""
    from urllib3 import exceptions

    table: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
        ((ConnectionRefusedError,), "the connection was refused"),
        ((socket.gaierror, exceptions.NameResolutionError), "its name could not be resolved"),
        ((TimeoutError, exceptions.TimeoutError), "it did not answer in time"),
        ((ssl.SSLCertVerificationError,), "its certificate is not trusted"),
        ((ssl.SSLError, exceptions.SSLError), "no TLS connection could be made"),
        ((ConnectionError, exceptions.ProtocolError), "the connection was cut"),
    )
    causes = list(_causes(error))
    words = (words for kinds, words in table if any(isinstance(cause, kinds) for cause in causes))
    system = (cause.strerror.lower() for cause in causes if isinstance(cause, OSError) and cause.strerror)
    return next(words, None) or next(system, "the connection failed")


def _causes(error: BaseException) -> Iterator[BaseException]:
    yield error
    inner = [error.__cause__, getattr(error, "reason", None), *error.args]
    for cause in inner:
        if isinstance(cause, BaseException):  # urllib3 keeps causes among the arguments
            yield from _causes(cause)


def read(status: int, text: bytes | str | None, expected: tuple[str, ...]) -> Response:
    """Return a response from its status and body, whatever the body contains."""
    plain = text.decode("utf-8", errors="replace") if isinstance(text, bytes) else text or ""
    try:
        document = json.loads(plain)
    except (ValueError, RecursionError):  # a proxy's page may be anything
        document = None
    body = document if isinstance(document, dict) else None
    return Response(status=status, expected=expected, body=body, text="" if body else plain[:500])


def _is_forbidden(response: Response, pattern: re.Pattern[str]) -> bool:
    return response.status == 403 and pattern.search(response.message) is not None


TABLE: tuple[tuple[Callable[[Response], bool], Meaning], ...] = (
    # A success with the object, and one with anything else: a page, part of an object.
    (lambda answer: answer.is_success and answer.kind in answer.expected, "answer"),
    (lambda answer: answer.is_success, "again"),
    # 401 from anybody, and a failure that is not the API's own.
    (lambda answer: answer.status == 401, "unauthorized"),
    (lambda answer: not answer.is_own, "again"),
    (lambda answer: answer.status in (408, 425, 429) or not 400 <= answer.status <= 499, "again"),
    # 409 for a name, for a version, and for any other reason: a quota is being counted.
    (lambda answer: answer.status == 409 and answer.reason == "AlreadyExists", "exists"),
    (lambda answer: answer.status == 409 and "recondition" in answer.message, "changed"),
    (lambda answer: answer.status == 409, "again"),
    (lambda answer: answer.status == 404 and answer.reason == "NotFound", "absent"),
    (lambda answer: answer.status == 404 and not answer.reason, "again"),
    # 403 for a quota that is used up, and for something that is not there yet.
    (lambda answer: _is_forbidden(answer, FULL), "full"),
    (lambda answer: _is_forbidden(answer, SOON), "soon"),
    (lambda answer: answer.is_own, "refused"),
)
"""Condition and meaning of a response; the first row that matches counts."""

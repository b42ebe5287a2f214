"""Callers of a service in the cluster, who keep the ids of their answers."""

import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count

from tests.cluster.loop import Question, ask

PACE_S, ANSWER_S = 0.25, 5.0


@dataclass
class Callers:
    """Ask each question until it has an answer, and keep the answers' ids.

    Attributes:
        acknowledged: when each id was got first.
        asked: the question of each id.
        digests: of the model that gave each answer, in their order.
        statuses: how often each came; 0 is a broken connection.
        failed_twice: how often a question and its repetition both had no answer.
    """

    address: str
    acknowledged: dict[str, datetime] = field(default_factory=dict)
    asked: dict[str, Question] = field(default_factory=dict)
    digests: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    failed_twice: int = 0

    @contextmanager
    def asking(self, questions: Iterable[Question]) -> Iterator[threading.Event]:
        """Ask meanwhile; the event is set when all have an answer. The last are then repeated until the end.

        Args:
            questions: may be endless.
        """
        is_done, is_over = threading.Event(), threading.Event()
        thread = threading.Thread(target=self._ask, args=(questions, is_done, is_over), daemon=True)
        thread.start()
        try:
            yield is_done
        finally:
            is_over.set()
            thread.join()

    def _ask(self, questions: Iterable[Question], is_done: threading.Event, is_over: threading.Event) -> None:
        last = deque[Question](maxlen=10)
        for question in questions:
            self._until_answered(question, is_over)
            last.append(question)
            if is_over.wait(PACE_S):
                return
        is_done.set()
        while not is_over.is_set():
            for question in last:
                self._until_answered(question, is_over)
                is_over.wait(PACE_S)

    def _until_answered(self, question: Question, is_over: threading.Event) -> None:
        for attempt in count(1):
            status, answer = ask(self.address, question, ANSWER_S)
            self.statuses[status] += 1
            self.failed_twice += attempt == 2 and status != 200
            if status == 200:
                identity = str(answer["prediction_id"])
                self.acknowledged.setdefault(identity, datetime.now(UTC))
                self.asked[identity] = question
                self.digests.append(answer["digest"])
                return
            if is_over.wait(PACE_S):
                return

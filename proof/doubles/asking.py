"""Callers of a service that keep the ids of their answers, and ask again with the same key until they have one."""

import http.client
import json
import threading
import time
from typing import Any, Self

from platform_assets.serving.run import child
from tests.doubles import models


class Callers:
    """Threads that each send one list of rows after the other; none ends with a list that was not answered.

    Attributes:
        acknowledged: ids of answers.
        repeated: requests that were sent again because their connection broke or the service could not answer.
    """

    def __init__(self, port: int, *, callers: int = 4, rows: int = 2, pause_s: float = 0.01, **row: Any) -> None:
        """Prepare.

        Args:
            rows: per list.
            pause_s: between two lists of one caller.
            row: what `models.row` gets for every row, except that lists are chosen by turns.
        """
        self.acknowledged: set[str] = set()
        self.repeated = 0
        self.is_paused = threading.Event()
        self._port, self._rows, self._pause_s, self._row = port, rows, pause_s, row
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(callers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _call(self, caller: int) -> None:
        count = 0
        while not self._is_over.is_set():
            if self.is_paused.is_set():
                time.sleep(self._pause_s)
                continue
            keys = [f"{id(self)}-{caller}-{count}-{row}" for row in range(self._rows)]
            chosen = {name: value[count % len(value)] for name, value in self._row.items()}
            body = json.dumps([models.row(key, idempotency_key=key, **chosen) for key in keys])
            while not self._is_answered(body):
                self.repeated += 1
                time.sleep(0.05)
            count += 1
            time.sleep(self._pause_s)

    def _is_answered(self, body: str) -> bool:
        connection = http.client.HTTPConnection(child.HOST, self._port, timeout=30)
        try:
            connection.request("POST", "/predict", body)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError):
            return False
        finally:
            connection.close()
        if response.status == 200:
            self.acknowledged.update(row["prediction_id"] for row in answer)
        return response.status == 200

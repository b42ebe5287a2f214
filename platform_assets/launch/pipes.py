"""Open a step's Pipes session (its input and its messages): through a folder, or through S3 if the store is on S3."""

from __future__ import annotations

import json
import shutil
import threading
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import dagster as dg
from dagster_pipes import PipesContextData, PipesDefaultContextLoader, PipesDefaultMessageWriter, PipesParams

from platform_assets.base.settings import Settings
from platform_assets.launch.attempt import Prepared, StepRequest

if TYPE_CHECKING:
    from dagster import PipesMessageHandler

READ_ATTEMPTS = 8
"""With pauses of up to 20 s in between, about a minute: a result must not be lost to an outage of that length."""


class KeptFileInjector(dg.PipesFileContextInjector):
    """Writes a step's input to a file and keeps it: a pod that is left alone may not have read it yet."""

    @contextmanager
    def inject_context(self, context_data: PipesContextData) -> Iterator[PipesParams]:
        """Write the input, and yield the parameters of the step's loader."""
        Path(self._path).write_text(json.dumps(context_data), encoding="utf-8")
        yield {PipesDefaultContextLoader.FILE_PATH_KEY: self._path}


class KeptReader(dg.PipesMessageReader):
    """Reads messages from their beginning and keeps them, unlike Dagster's readers, so another run can take over.

    When the session closes, the step's process has ended or is given up: everything that is there is read once more,
    without waiting for a closing message. Dagster's reader (1.13) waits 10 s for it; a killed step never writes one.
    """

    read_every_s: ClassVar[float]
    passing: tuple[type[Exception], ...] = ()
    """Errors after which it reads again later."""

    @abstractmethod
    def params(self) -> PipesParams:
        """Return the parameters of the step's writer."""

    @abstractmethod
    def messages(self) -> Iterator[str]:
        """Yield the messages that have come since the last call, each one JSON object."""

    @contextmanager
    def read_messages(self, handler: PipesMessageHandler) -> Iterator[PipesParams]:
        """Yield the parameters of the step's writer, and forward its messages until the end, including the last.

        Raises:
            OSError or botocore's errors: the last messages could not be read.
        """
        is_over = threading.Event()
        reader = threading.Thread(target=self._read, args=(handler, is_over), daemon=True)
        reader.start()
        try:
            yield self.params()
        finally:
            is_over.set()
            reader.join()
            self._forward(handler)

    def _read(self, handler: PipesMessageHandler, is_over: threading.Event) -> None:
        while not is_over.wait(self.read_every_s):
            with suppress(*self.passing):
                self._forward(handler)

    def _forward(self, handler: PipesMessageHandler) -> None:
        for message in self.messages():
            handler.handle_message(json.loads(message))

    def no_messages_debug_text(self) -> str:
        """Say where messages were expected."""
        return f"Messages were expected in {self.params()}."


class KeptFileReader(KeptReader):
    """Reads a file. A line counts once it is complete.

    Dagster's own reader (1.13) fails on a line that is being written, which loses the step's result.

    Args:
        path: the file; a step under way may have written to it already.
    """

    read_every_s = 0.1

    def __init__(self, path: Path) -> None:
        path.touch()
        self.path = path
        self._position, self._rest = 0, ""

    def params(self) -> PipesParams:
        return {PipesDefaultMessageWriter.FILE_PATH_KEY: str(self.path)}

    def messages(self) -> Iterator[str]:
        with self.path.open(encoding="utf-8") as file:
            file.seek(self._position)
            *whole, self._rest = (self._rest + file.read()).split("\n")
            self._position = file.tell()
        yield from whole


class KeptObjectsReader(KeptReader):
    """Reads numbered objects of several lines each from S3, as Dagster's `PipesS3MessageWriter` writes them.

    Args:
        client: of boto3.
        params: bucket and key prefix; a step under way may have written there already.
    """

    read_every_s = 2.0
    absent = ("NoSuchKey", "AccessDenied")
    """Error codes of an object that does not exist; the second where the account may not list the bucket."""

    def __init__(self, client: Any, params: PipesParams) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        self.passing = (BotoCoreError, ClientError)
        self._client, self._params, self._number = client, params, 1

    def params(self) -> PipesParams:
        return self._params

    def messages(self) -> Iterator[str]:
        while (chunk := self._chunk()) is not None:
            self._number += 1
            yield from chunk.splitlines()

    def _chunk(self) -> str | None:
        from botocore.exceptions import ClientError

        key = f"{self._params['key_prefix']}/{self._number}.json"
        try:
            answer = self._client.get_object(Bucket=self._params["bucket"], Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] not in self.absent:
                raise
            return None
        return str(answer["Body"].read().decode("utf-8"))


@contextmanager
def session(
    request: StepRequest, prepared: Prepared, settings: Settings, *, is_lasting: bool
) -> Iterator[dg.PipesSession]:
    """Open the Pipes session of an attempt, without the preview warning of a method that Dagster itself calls.

    Args:
        is_lasting: whether the step and its session's files may outlive this process.
    """
    launch, extras = prepared.launch, request.extras
    with ExitStack() as stack:
        if not is_lasting:
            stack.callback(forget, settings, launch.id)
        messages = prepared.messages
        injector: dg.PipesContextInjector
        reader: dg.PipesMessageReader
        if "://" not in settings.root:
            folder = _folder(settings, launch.id)
            folder.mkdir(parents=True, exist_ok=True)
            injector = KeptFileInjector(str(folder / "context"))
            reader = KeptFileReader(folder / "messages" if messages is None else Path(messages["path"]))
        else:
            import boto3
            from botocore.config import Config
            from dagster_aws.pipes import PipesS3ContextInjector  # takes 2.3 s, which a folder need not pay

            client = boto3.client("s3", config=Config(retries={"mode": "standard", "max_attempts": READ_ATTEMPTS}))
            bucket, _, root = settings.root.partition("://")[2].partition("/")
            prefix = f"{root.strip('/')}/pipes/".lstrip("/")
            injector = PipesS3ContextInjector(bucket=bucket, client=client, key_prefix=prefix)
            params = messages or {"bucket": bucket, "key_prefix": f"{prefix}{launch.id}"}
            reader = KeptObjectsReader(client, params)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.PreviewWarning)
            opened = stack.enter_context(
                dg.open_pipes_session(
                    context=request.context.op_execution_context,
                    context_injector=injector,
                    message_reader=reader,
                    extras={**(extras if isinstance(extras, Mapping) else {}), "attempt": launch.document()},
                )
            )
        yield opened


def forget(settings: Settings, attempt_id: str) -> None:
    """Delete a lasting session's files from the folder; on S3 a lifecycle rule of the bucket does that (`pipes/`)."""
    if "://" not in settings.root:
        shutil.rmtree(_folder(settings, attempt_id), ignore_errors=True)


def _folder(settings: Settings, attempt_id: str) -> Path:
    return Path(settings.root) / "pipes" / attempt_id

"""Open a step's Pipes session (its input and its messages): through a folder, or through S3 if the store is on S3."""

from __future__ import annotations

import json
import shutil
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import dagster as dg
from dagster_pipes import PipesDefaultMessageWriter, PipesExtras, PipesParams

from platform_assets.records.attempts import Launch
from platform_assets.settings import Settings

if TYPE_CHECKING:
    from dagster import PipesMessageHandler

READ_EVERY_S = 2.0
FILE_READ_EVERY_S = 0.1


class KeptFileReader(dg.PipesMessageReader):
    """Reads a file from its beginning and does not empty it, unlike Dagster's reader, so another run can take over.

    A line counts once it is complete. Dagster's own reader (1.13) fails on a line that is being written, which loses
    the step's result.

    Args:
        path: the file; a step under way may have written to it already.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def read_messages(self, handler: PipesMessageHandler) -> Iterator[PipesParams]:
        """Yield the parameters of the step's writer, and forward its messages until the end, including the last."""
        self.path.touch()
        is_over = threading.Event()
        reader = threading.Thread(target=self._read, args=(handler, is_over), daemon=True)
        reader.start()
        try:
            yield {PipesDefaultMessageWriter.FILE_PATH_KEY: str(self.path)}
        finally:
            is_over.set()
            reader.join()

    def _read(self, handler: PipesMessageHandler, is_over: threading.Event) -> None:
        rest = ""
        with self.path.open(encoding="utf-8") as file:
            while True:
                was_over = is_over.is_set()
                *whole, rest = (rest + file.read()).split("\n")
                for line in whole:
                    handler.handle_message(json.loads(line))
                if was_over:
                    return
                is_over.wait(FILE_READ_EVERY_S)

    def no_messages_debug_text(self) -> str:
        """Say where messages were expected."""
        return f"Messages were expected in {self.path}."


@contextmanager
def session(
    context: dg.AssetExecutionContext,
    extras: object,
    launch: Launch,
    settings: Settings,
    *,
    is_lasting: bool = False,
    messages: PipesParams | None = None,
) -> Iterator[dg.PipesSession]:
    """Open a Pipes session, without the preview warning of a method that Dagster itself calls.

    Args:
        extras: the step's input.
        launch: the attempt's facts, which become part of the input.
        is_lasting: whether the step and its session's files may outlive this process.
        messages: parameters of the messages of a step under way, from its environment; None for a new step.
    """
    with ExitStack() as stack:
        folder = _folder(settings, launch.id) if is_lasting else Path(stack.enter_context(TemporaryDirectory()))
        injector, reader = _ends(settings, folder, messages)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.PreviewWarning)
            opened = stack.enter_context(
                dg.open_pipes_session(
                    context=context.op_execution_context,
                    context_injector=injector,
                    message_reader=reader,
                    extras=with_attempt(extras, launch),
                )
            )
        yield opened


def with_attempt(extras: object, launch: Launch) -> PipesExtras:
    """Return a step's input with the attempt's facts."""
    return {**(extras if isinstance(extras, Mapping) else {}), "attempt": launch.document()}


def forget(settings: Settings, lasting: str) -> None:
    """Delete a lasting session's files from the folder; on S3 a lifecycle rule of the bucket does that (`pipes/`)."""
    if "://" not in settings.root:
        shutil.rmtree(_folder(settings, lasting), ignore_errors=True)


def _folder(settings: Settings, lasting: str) -> Path:
    return Path(settings.root) / "pipes" / lasting


def _ends(
    settings: Settings, folder: Path, messages: PipesParams | None
) -> tuple[dg.PipesContextInjector, dg.PipesMessageReader]:
    if "://" not in settings.root:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "messages" if messages is None else Path(messages["path"])
        return dg.PipesFileContextInjector(str(folder / "context")), KeptFileReader(path)
    import boto3
    from dagster_aws.pipes import PipesS3ContextInjector, PipesS3MessageReader

    class Reader(PipesS3MessageReader):
        """Reads from the prefix that a step under way writes to."""

        @contextmanager
        def get_params(self) -> Iterator[PipesParams]:
            with super().get_params() as params:
                yield {**params, **(messages or {"key_prefix": f"{prefix}{params['key_prefix']}"})}

    client = boto3.client("s3")
    bucket, _, root = settings.root.partition("://")[2].partition("/")
    prefix = f"{root.strip('/')}/pipes/".lstrip("/")
    injector = PipesS3ContextInjector(bucket=bucket, client=client, key_prefix=prefix)
    return injector, Reader(interval=READ_EVERY_S, bucket=bucket, client=client)

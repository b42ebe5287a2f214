"""Open what a step is told and how it answers: through a folder, or through S3 where the store is on S3.

Belongs here: Dagster Pipes' injectors and readers. Does not belong here: what is told.
"""

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
    """Reads a file from its beginning and leaves it there, for whoever takes the step over; Dagster's own empties it.

    A line counts once it is whole. Dagster's own reader (1.13) dies of one that is being written, and the step's result
    with it.

    Args:
        place: the file; a step that is under way may have written to it.
    """

    def __init__(self, place: Path) -> None:
        self.place = place

    @contextmanager
    def read_messages(self, handler: PipesMessageHandler) -> Iterator[PipesParams]:
        """Yield what the step's writer must know, and hand over its messages until the end, the last ones included."""
        self.place.touch()
        is_over = threading.Event()
        reader = threading.Thread(target=self._read, args=(handler, is_over), daemon=True)
        reader.start()
        try:
            yield {PipesDefaultMessageWriter.FILE_PATH_KEY: str(self.place)}
        finally:
            is_over.set()
            reader.join()

    def _read(self, handler: PipesMessageHandler, is_over: threading.Event) -> None:
        rest = ""
        with self.place.open(encoding="utf-8") as file:
            while True:
                was_over = is_over.is_set()
                *whole, rest = (rest + file.read()).split("\n")
                for line in whole:
                    handler.handle_message(json.loads(line))
                if was_over:
                    return
                is_over.wait(FILE_READ_EVERY_S)

    def no_messages_debug_text(self) -> str:
        """Say where messages were looked for."""
        return f"Messages were looked for in {self.place}."


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
    """Open a Pipes session, silent about the preview method that Dagster itself calls on the way.

    Args:
        extras: what the step is told.
        launch: what is known of the attempt, which the step is told too.
        is_lasting: whether it may outlive this process, and with it what it is told and answers.
        messages: where a step that is under way writes its messages, as its own environment says; None for a new one.
    """
    with ExitStack() as stack:
        place = _folder(settings, launch.id) if is_lasting else Path(stack.enter_context(TemporaryDirectory()))
        injector, reader = _ends(settings, place, messages)
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
    """Return what a step is told with what is known of the attempt."""
    return {**(extras if isinstance(extras, Mapping) else {}), "attempt": launch.document()}


def forget(settings: Settings, lasting: str) -> None:
    """Remove what a lasting attempt was told and answered in a folder; on S3 a rule of the bucket does (`pipes/`)."""
    if "://" not in settings.root:
        shutil.rmtree(_folder(settings, lasting), ignore_errors=True)


def _folder(settings: Settings, lasting: str) -> Path:
    return Path(settings.root) / "pipes" / lasting


def _ends(
    settings: Settings, folder: Path, messages: PipesParams | None
) -> tuple[dg.PipesContextInjector, dg.PipesMessageReader]:
    if "://" not in settings.root:
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / "messages" if messages is None else Path(messages["path"])
        return dg.PipesFileContextInjector(str(folder / "context")), KeptFileReader(place)
    import boto3
    from dagster_aws.pipes import PipesS3ContextInjector, PipesS3MessageReader

    class Reader(PipesS3MessageReader):
        """Reads from where a step that is under way writes."""

        @contextmanager
        def get_params(self) -> Iterator[PipesParams]:
            with super().get_params() as params:
                yield {**params, **(messages or {"key_prefix": f"{prefix}{params['key_prefix']}"})}

    client = boto3.client("s3")
    bucket, _, path = settings.root.partition("://")[2].partition("/")
    prefix = f"{path.strip('/')}/pipes/".lstrip("/")
    injector = PipesS3ContextInjector(bucket=bucket, client=client, key_prefix=prefix)
    return injector, Reader(interval=READ_EVERY_S, bucket=bucket, client=client)

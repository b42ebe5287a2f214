"""Read a step's input and open its way back, through files or S3; refuse to work for a run of other code.

Dagster Pipes' loaders are chosen by the environment that the launcher set.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec
from dagster_pipes import (
    PipesContext,
    PipesEnvVarParamsLoader,
    PipesMessage,
    PipesMessageWriter,
    PipesMessageWriterChannel,
    PipesParams,
    PipesS3ContextLoader,
    PipesS3MessageWriter,
    open_dagster_pipes,
)

from platform_assets.base import extras, logs
from platform_assets.base.problems import Problem
from platform_assets.engine import digests, product_files
from platform_assets.product import data_files
from platform_assets.store.records.values import member, text, texts
from platform_assets.training import libraries
from platform_assets.training.steps import process

WRITE_EVERY_S = 2.0
WRITE_ATTEMPTS = 8
NAMED = 5
"""How many modules an error names."""
PROTOCOL = 4
"""Raise it when the input of steps, or what they send back, changes."""
_FIX = (
    "In a container or a pod, build the image again (`make images`) and set DRIFTLINE_TRAINER_IMAGE to what it "
    "prints; on a laptop, reload the code location and launch again."
)


class Silence(PipesMessageWriter[PipesMessageWriterChannel], PipesMessageWriterChannel):
    """Sends nothing: of several processes of a step only the first one does."""

    @contextmanager
    def open(self, params: PipesParams) -> Iterator[PipesMessageWriterChannel]:
        """Yield itself."""
        yield self

    def write_message(self, message: PipesMessage) -> None:
        """Do nothing."""


class OtherCode(Problem, RuntimeError):
    """The step's code differs from the code of the run that started it."""


@contextmanager
def opened(*, is_silent: bool = False) -> Iterator[PipesContext]:
    """Yield the step's context; its messages are sent at the end.

    An error gets a note if the kernel killed a child of this process for memory, which may be its cause.

    Args:
        is_silent: read the input and send no message.

    Raises:
        OtherCode: the run uses another protocol.
    """
    with open_context(is_silent=is_silent) as context:
        if logs.install():
            # What the step tells its run goes to its own log too, where that is JSON; by Pipes it never gets there.
            asset = context.asset_key if context.is_asset_step else ""
            logs.know(
                product=text(context.extras, "product"),
                key=context.partition_key if context.is_partition_step else None,
                run_id=context.run_id,
                job=context.job_name,
                step=asset.replace("/", "__"),
            )
            context.log.addHandler(logging.StreamHandler())
        check_protocol(context.extras)
        before = process.oom_kills()
        try:
            yield context
        except Exception as error:
            if count := process.oom_kills() - before:
                # Not every runtime marks a container as OOMKilled when the kernel kills a child of its first process.
                error.add_note(f"The kernel killed for memory, in this container: {count} processes.")
            if isinstance(error, ModuleNotFoundError):
                raise extras.named(error) from error
            raise


def to_extras(job: msgspec.Struct, maker: object, versions: Mapping[str, str] | None = None) -> object:
    """Return a step's input as JSON values: its work, the protocol, and what it compares itself with.

    Args:
        job: its work; see `jobs`.
        maker: the maker whose code produces the result.
        versions: of the libraries that determine bytes, for a step whose fingerprint contains them.
    """
    return {
        **msgspec.to_builtins(job),
        "protocol": PROTOCOL,
        "maker": {"digest": digests.code_digest(maker), "parts": digests.parts(maker), "files": _files(maker)},
        **({} if versions is None else {"libraries": dict(versions)}),
    }


def check_protocol(extras: object) -> None:
    """Refuse to work for a run whose protocol differs from this step's.

    Raises:
        OtherCode: it names both numbers.
    """
    protocol = member(extras, "protocol")
    if protocol != PROTOCOL:
        raise OtherCode(f"the run that started this step uses protocol {protocol!r}; expected {PROTOCOL}. {_FIX}")


def check_maker(extras: object, maker: object) -> None:
    """Refuse to work where the code that makes the result differs from the run's.

    Raises:
        OtherCode: it names the modules and the data files that differ.
    """
    try:
        # Images age: a training in yesterday's would be recorded as made by today's code.
        if text(extras, "maker", "digest") == digests.code_digest(maker):
            return
        files = _files(maker)
    except data_files.DataFileProblem as missing:
        raise OtherCode(
            f"the code of this step differs from that of the run that started it: {missing} {_FIX}"
        ) from None
    expected = texts(extras, "maker", "files")
    other = sorted(name for name in {*files, *expected} if files.get(name) != expected.get(name))
    here, there = digests.parts(maker), texts(extras, "maker", "parts")
    other += sorted({name.partition(":")[0] for name in {*here, *there} if here.get(name) != there.get(name)})
    if not other:  # the product's definitions are digested together, so none of them can be named
        module = text(extras, "module")
        is_shipped = module.startswith(f"{product_files.FOLDER}.")
        other = [
            "the product's file"
            if is_shipped
            else f"module {module}, or one of {module.partition('.')[0]} that it imports"
        ]
    named = ", ".join(other[:NAMED]) + (f" and {len(other) - NAMED} more" if len(other) > NAMED else "")
    raise OtherCode(
        "the code of this step differs from that of the run that started it; different or missing here: "
        f"{named}. {_FIX}"
    )


def _files(maker: object) -> dict[str, str]:
    return {name: data_files.sha256(file) for name, file in digests.data_files_of(maker).items()}


def check_libraries(extras: object) -> None:
    """Refuse to work with library versions other than the fingerprint's.

    Raises:
        OtherCode: it names the libraries that differ.
    """
    expected = texts(extras, "libraries")
    here = libraries.installed(expected)
    # An image whose label cannot be read stands for its versions: there is nothing to compare then.
    if libraries.IMAGE not in expected and expected != here:
        names = sorted(name for name in {*expected, *here} if expected.get(name) != here.get(name))
        differing = ", ".join(f"{name} {here.get(name)} (expected {expected.get(name)})" for name in names)
        raise OtherCode(f"libraries of this step differ from those of the run that started it: {differing}. {_FIX}")


def open_context(*, is_silent: bool = False) -> PipesContext:
    """Connect this process to the run that started it: through files, or through S3 if its input is there."""
    params = PipesEnvVarParamsLoader()
    if params.is_dagster_pipes_process() and "bucket" in params.load_context_params():
        import boto3
        from botocore.config import Config

        # With pauses of up to 20 s: the writer's thread ends at its first error, and the step's result is lost.
        client = boto3.client("s3", config=Config(retries={"mode": "standard", "max_attempts": WRITE_ATTEMPTS}))
        writer = Silence() if is_silent else PipesS3MessageWriter(client=client, interval=WRITE_EVERY_S)
        return open_dagster_pipes(context_loader=PipesS3ContextLoader(client=client), message_writer=writer)
    return open_dagster_pipes(message_writer=Silence() if is_silent else None)

"""Open what the launcher tells this step, and the way back: through files, or through S3.

Belongs here: choosing Dagster Pipes' loaders by what the launcher left in the environment, and refusing to work for a
run of other code. Does not belong here: what else is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec
from dagster_pipes import (
    PipesContext,
    PipesEnvVarParamsLoader,
    PipesS3ContextLoader,
    PipesS3MessageWriter,
    open_dagster_pipes,
)

from platform_assets import digests, libraries
from platform_assets.digests import modules
from platform_assets.problems import Problem
from platform_assets.records.values import member, text, texts

WRITE_EVERY_S = 2.0
NAMED = 5
"""How many modules a refusal names."""
PROTOCOL = 1
"""Raised by whoever changes what a run tells its steps, or a step its run."""
_FIX = (
    "In a container or a pod, build the image again (`make image`) and set DRIFTLINE_TRAINER_IMAGE to what that "
    "prints; on a laptop, reload the code location and launch again."
)


class OtherCode(Problem, RuntimeError):
    """The step's code is not the code of the run that started it."""


@contextmanager
def opened() -> Iterator[PipesContext]:
    """Yield the context of this step; its messages are sent at the end.

    Raises:
        OtherCode: the run speaks another protocol.
    """
    with _context() as context:
        check_protocol(context.extras)
        yield context


def told(job: msgspec.Struct, maker: object, versions: Mapping[str, str] | None = None) -> object:
    """Return what a step is told, as JSON values: its work, the protocol, and what it compares itself with.

    Args:
        job: its work; see `jobs`.
        maker: whose code makes the result.
        versions: of the libraries that make bytes, of a step whose fingerprint holds them.
    """
    return {
        **msgspec.to_builtins(job),
        "protocol": PROTOCOL,
        "maker": {"digest": digests.code_digest(maker), "modules": digests.module_digests(maker)},
        # An image from before protocols looks for modules of this name, finds none, and refuses.
        "code": {"platform_assets.digests": "0" * 64},
        **({} if versions is None else {"libraries": dict(versions)}),
    }


def check_protocol(extras: object) -> None:
    """Refuse to work for a run that tells its steps other things than this step is made for.

    Raises:
        OtherCode: with both numbers.
    """
    given = member(extras, "protocol")
    if given != PROTOCOL:
        raise OtherCode(f"the run that started this step speaks protocol {given!r}; expected {PROTOCOL}. {_FIX}")


def check_maker(extras: object, maker: object) -> None:
    """Refuse to work where other code would make the result than the run says.

    Raises:
        OtherCode: naming the modules that differ.
    """
    if text(extras, "maker", "digest") == digests.code_digest(maker):
        return
    other = modules.differing(texts(extras, "maker", "modules")) or ["the product's file"]
    named = ", ".join(other[:NAMED]) + (f" and {len(other) - NAMED} more" if len(other) > NAMED else "")
    raise OtherCode(
        "the code of this step is not that of the run that started it; what differs or is missing here: "
        f"{named}. {_FIX}"
    )


def check_libraries(extras: object) -> None:
    """Refuse to work with other versions of the libraries that make bytes than the fingerprint names.

    Raises:
        OtherCode: naming each.
    """
    here, expected = libraries.installed(), texts(extras, "libraries")
    if libraries.IMAGE not in expected and expected != here:
        names = sorted(name for name in {*expected, *here} if expected.get(name) != here.get(name))
        differing = ", ".join(f"{name} {here.get(name)} (expected {expected.get(name)})" for name in names)
        raise OtherCode(f"libraries of this step are not those of the run that started it: {differing}. {_FIX}")


def _context() -> PipesContext:
    params = PipesEnvVarParamsLoader()
    if params.is_dagster_pipes_process() and "bucket" in params.load_context_params():
        import boto3

        client = boto3.client("s3")
        return open_dagster_pipes(
            context_loader=PipesS3ContextLoader(client=client),
            message_writer=PipesS3MessageWriter(client=client, interval=WRITE_EVERY_S),
        )
    return open_dagster_pipes()

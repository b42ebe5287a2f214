"""Rows of queued runs, as whoever has the password of Dagster's database may write them."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.code_pointer import CodePointer, ModuleCodePointer
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

OWN_CODE = ModuleCodePointer("platform_assets.definitions", "defs")


def row(
    job: str,
    *,
    location: str = "driftline",
    image: str | None = None,
    entry_point: Sequence[str] | None = ("dagster",),
    executable_path: str = sys.executable,
    code_pointer: CodePointer = OWN_CODE,
    container_context: Mapping[str, Any] | None = None,
    origin_job: str | None = None,
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.QUEUED,
    **rest: Any,
) -> dg.DagsterRun:
    """Return a queued run; what is not given is as our own code server writes it.

    Args:
        origin_job: the job that its code names, if it is another.
    """
    remote = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(location), "__repository__"), job)
    code = RepositoryPythonOrigin(
        executable_path=executable_path,
        code_pointer=code_pointer,
        container_image=image,
        entry_point=entry_point,
        container_context=container_context,
    )
    return dg.DagsterRun(
        job,
        status=status,
        remote_job_origin=remote,
        job_code_origin=JobPythonOrigin(origin_job or job, code),
        **rest,
    )

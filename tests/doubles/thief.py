"""Code in a pod that tries what it has no right to, with what it finds there, and reports how each try ended.

As a step it is `python -m tests.doubles.thief`, and its plan is the step's input; elsewhere the plan is its argument,
and what it reports the last line of its output.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

from platform_assets.base import naming

TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
SECRETS = ("SIGNING", "PASSWORD", "PGPASS")
"""What the names of variables contain that no step and no service has."""
ANSWER_S = 3.0
Plan = Mapping[str, Any]
"""`writes` and `deletes`: objects below the store's root; `connects`: addresses and ports by the server's name; and for
how long a connection that works is tried again, `patience_s`."""


def foreign(product: str, other: str) -> tuple[str, ...]:
    """Return what a step of a product has no business with, one object of each kind."""
    return (
        f"ledgers/{product}/{naming.RELEASES}/00000001.json",
        f"ledgers/{product}/{naming.VERDICTS}/{'0' * 64}.json",
        f"ledgers/{product}/{naming.DECISIONS}/2013-06-01.json",
        f"ledgers/{other}/{naming.CHECKPOINTS}/00000001.json",
        f"tables/{product}/features/part-0.parquet",
        f"records/{product}/features/2013-06-01.json",
        f"prediction_log/{product}/1-2-3.jsonl.zst",
        f"landing/{product}/flights/2013-06-01.csv",
    )


def kept(product: str, other: str) -> tuple[str, ...]:
    """Return what a step of a product must not delete, of which it writes the first two itself."""
    own = (f"ledgers/{product}/{naming.TRAININGS}/00000001.json", f"artifacts/sha256/{'0' * 64}")
    others = (path for path in foreign(product, other) if naming.VERDICTS not in path and naming.DECISIONS not in path)
    return (*own, *others)


def error_of(request: Callable[..., Any], **arguments: Any) -> str:
    """Return the code of a store's refusal; empty if it did what was asked."""
    try:
        request(**arguments)
    except ClientError as problem:
        status = problem.response["ResponseMetadata"]["HTTPStatusCode"]
        return str(problem.response.get("Error", {}).get("Code", "AccessDenied" if status == 403 else status))
    return ""


def tried(plan: Plan) -> dict[str, Any]:
    """Return the error of each try, empty for what succeeded, and what else the pod has."""
    bucket, _, path = os.environ["DRIFTLINE_ROOT"].removeprefix("s3://").partition("/")
    store = boto3.client("s3", region_name=os.environ["AWS_REGION"])

    def asked(request: Callable[..., Any], names: Sequence[str], **more: Any) -> dict[str, str]:
        return {name: error_of(request, Bucket=bucket, Key=f"{path}/{name}", **more) for name in names}

    return {
        "written": asked(store.put_object, plan["writes"], Body=b"forged"),
        "deleted": asked(store.delete_object, plan["deletes"]),
        "connected": {name: _connected(*place, plan["patience_s"]) for name, place in plan["connects"].items()},
        "has": sorted(_secrets()),
    }


def _secrets() -> Iterator[str]:
    """Yield the variables with a secret or with the path of a file that is there, and the token of Kubernetes."""
    for name, text in os.environ.items():
        if any(part in name for part in SECRETS) and (Path(text).is_file() if name.endswith("_FILE") else text):
            yield name
    if TOKEN.exists():
        yield "token"


def _connected(address: str, port: int, patience_s: float) -> str:
    until = time.monotonic() + patience_s
    try:
        while True:
            socket.create_connection((address, port), ANSWER_S).close()
            if time.monotonic() >= until:
                return ""
            time.sleep(0.2)
    except OSError as problem:
        return type(problem).__name__


def main() -> None:
    if len(sys.argv) > 1:
        sys.stdout.write(json.dumps(tried(json.loads(sys.argv[1]))) + "\n")
        return
    from platform_assets.training.steps.instructions import open_context

    with open_context() as pipes:
        pipes.report_custom_message({"kind": "result", **tried(pipes.extras)})


if __name__ == "__main__":
    main()

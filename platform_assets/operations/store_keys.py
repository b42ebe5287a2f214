"""Give each account a key of its own at an S3 server, and put the policies of both buckets.

For servers with AWS's API of users (IAM), at the address of the store or at that in AWS_ENDPOINT_URL_IAM. Each account
is a user there. The keys are kept as Kubernetes secrets in one file, which `kubectl apply` takes.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from platform_assets.base.problems import Problem
from platform_assets.base.settings import Settings
from platform_assets.operations import bucket_policy

Key = Mapping[str, str]
"""The variables of an access key."""
ID, SECRET = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"


class StoreKeysProblem(Problem, ValueError):
    """The server gives no keys, or the file of keys cannot be used."""


def write(settings: Settings, products: Sequence[str], logs: str, file: Path, *, renews: bool) -> list[str]:
    """Write a key of each account into a file, made at the server where the file has no valid one.

    The policies of the buckets follow the users, so a key that was made can do nothing before.

    Args:
        products: each has accounts of steps and of its service.
        logs: bucket of the output of runs.
        file: of Kubernetes secrets; written for this user alone.
        renews: make new keys; those in the file stay valid until `revoke`.

    Returns:
        The names of the accounts that got a new key.

    Raises:
        StoreKeysProblem: see there.
        ValueError: the store is a folder, or its policy is too large.
    """
    store = settings.root.removeprefix("s3://").partition("/")[0]
    if store == logs:
        raise StoreKeysProblem(f"--logs is {logs}, the bucket of DRIFTLINE_ROOT; expected another one.")
    bucket_policy.text(settings.root, products, bucket_policy.PRINCIPAL)  # or nothing is made
    iam, keys, fresh = _client("iam", settings), {} if renews else read(file), []
    principals = set()
    for user in _secrets(products):
        created = _request(f"create the user {user}", iam.create_user, "EntityAlreadyExists", UserName=user)
        about = created or _request(f"name the user {user}", iam.get_user, UserName=user)
        principals.add(about["User"]["Arn"].removesuffix(user) + "{account}")
    if len(principals) > 1:
        raise StoreKeysProblem(f"the users have different places, {', '.join(sorted(principals))}; expected one path.")
    principal = principals.pop()
    for user, secret in _secrets(products).items():
        if secret not in keys or keys[secret][ID] not in _ids(iam, user):
            created = _request("make a key", iam.create_access_key, UserName=user)["AccessKey"]
            keys[secret] = {ID: created["AccessKeyId"], SECRET: created["SecretAccessKey"]}
            fresh.append(user)
            _write(file, settings.namespace, keys)
    policies = {
        store: bucket_policy.text(settings.root, products, principal),
        logs: bucket_policy.logs_text(logs, principal),
    }
    s3 = _client("s3", settings)
    for bucket, policy in policies.items():
        _request(f"put the policy of bucket {bucket}", s3.put_bucket_policy, Bucket=bucket, Policy=policy)
    return fresh


def revoke(settings: Settings, products: Sequence[str], file: Path) -> list[str]:
    """Delete all keys of our accounts that are not in a file; return their accounts, one per key.

    Raises:
        StoreKeysProblem: see there.
    """
    iam, keys, revoked = _client("iam", settings), read(file), []
    for user, secret in _secrets(products).items():
        if secret not in keys:
            raise StoreKeysProblem(f"{file} has no key of {user}; write it first: `driftline store-keys {file}`.")
        for one in sorted(_ids(iam, user) - {keys[secret][ID]}):
            _request("revoke a key", iam.delete_access_key, UserName=user, AccessKeyId=one)
            revoked.append(user)
    return revoked


def _secrets(products: Sequence[str]) -> dict[str, str]:
    """Return the Kubernetes secret of each user at the server."""
    return {
        account.service_account(product): account.store_secret(product)
        for account, product in bucket_policy.accounts_of(products)
    }


def _client(service: str, settings: Settings) -> Any:
    of_store = dict(settings.store_environment)
    region = of_store.get("AWS_REGION") or of_store.get("AWS_DEFAULT_REGION") or "us-east-1"  # boto3 reads the latter
    try:
        return boto3.Session(region_name=region).client(service)
    except (BotoCoreError, ValueError) as problem:
        raise StoreKeysProblem(f"no client of {service}: {problem}; check AWS_ENDPOINT_URL and AWS_REGION.") from None


def _request(purpose: str, call: Callable[..., Any], expected: str = "-", **arguments: str) -> Any:
    """Return the answer to a request, None for an error that was expected; others name it and what to do instead."""
    try:
        return call(**arguments)
    except (BotoCoreError, ClientError) as problem:
        # Not every server's refusal is one that this client reads: some have no error, only a status.
        response: Mapping[str, Any] = getattr(problem, "response", {})
        if response.get("Error", {}).get("Code", "").startswith(expected):
            return None
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", "no answer")
        raise StoreKeysProblem(
            f"the server did not {purpose}: {problem} ({status}). This needs a key that may administer users, and "
            "AWS's API of users (IAM) at the address of the store or at AWS_ENDPOINT_URL_IAM; where there is none, "
            "make users with the server's own tools, and put what `driftline policy` prints on the buckets."
        ) from None


def _ids(iam: Any, user: str) -> set[str]:
    listed = _request(f"list the keys of {user}", iam.list_access_keys, UserName=user)
    return {item["AccessKeyId"] for item in listed["AccessKeyMetadata"]}


def read(file: Path) -> dict[str, Key]:
    """Return the keys in a file by the names of their secrets; none if there is no file.

    Raises:
        StoreKeysProblem: it holds something else.
    """
    try:
        items = json.loads(file.read_bytes())["items"]
        return {
            item["metadata"]["name"]: {name: b64decode(item["data"][name]).decode() for name in (ID, SECRET)}
            for item in items
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError) as problem:
        raise StoreKeysProblem(
            f"{file} does not hold keys as `driftline store-keys` writes them: {problem!r}."
        ) from None


def _write(file: Path, namespace: str, keys: Mapping[str, Key]) -> None:
    items = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "data": {variable: b64encode(text.encode()).decode() for variable, text in key.items()},
        }
        for name, key in keys.items()
    ]
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            json.dump({"apiVersion": "v1", "kind": "List", "items": items}, opened, indent=1)
        temporary.replace(file)
    except OSError as problem:
        raise StoreKeysProblem(f"{file} cannot be written: {problem.strerror}.") from None

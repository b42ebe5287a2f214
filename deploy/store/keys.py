"""Give each account a key of its own at an S3 server, and put the policies of this folder on both buckets.

    python deploy/store/keys.py FILE --logs BUCKET [--renew | --revoke]

is for servers with AWS's API of users (IAM), at the address of the store or at AWS_ENDPOINT_URL_IAM, and needs a key
that may administer users. FILE gets the keys as Kubernetes secrets, for `kubectl apply`. Elsewhere make users or roles
by the server's own tools; `--print ARN` prints both policies for them, such as `arn:aws:iam::111122223333:role/`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from platform_assets.base.accounts import ACCOUNTS
from platform_assets.base.problems import Problem
from platform_assets.base.settings import Settings
from platform_assets.engine import product_files

ID, SECRET = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
Keys = dict[str, dict[str, str]]


def main(arguments: Sequence[str]) -> None:
    """Write, renew or revoke keys, or print the policies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, help="secrets with the keys; those that work are kept")
    parser.add_argument("--logs", metavar="BUCKET", required=True, help="bucket of the output of runs")
    parser.add_argument("--print", metavar="ARN", dest="arn", help="print both policies for accounts below this ARN")
    parser.add_argument("--renew", action="store_true", help="make new keys; the present ones stay valid")
    parser.add_argument("--revoke", action="store_true", help="delete the accounts' keys that are not in FILE")
    options = parser.parse_args(arguments)
    settings, products = Settings.from_environment(), [product.name for product in product_files.load_each()[0]]
    if options.arn:
        shared = products if settings.has_product_accounts else []
        print(*policies(settings.root, options.logs, shared, options.arn).values(), sep="\n")
        return
    if options.file is None:
        parser.error("FILE or --print ARN is missing.")
    fresh = write(settings, products, options.logs, options.file, renews=options.renew)
    print(f"new keys: {', '.join(fresh) or 'none'}; in {options.file}")
    if options.revoke:
        print(f"revoked: {', '.join(revoke(products, options.file)) or 'none'}")


def policies(root: str, logs: str, products: Sequence[str], arn: str) -> dict[str, str]:
    """Return the policy of each bucket by its name.

    Args:
        products: whose steps and services have accounts of their own; none: they share one of each kind.
        arn: of an account without its name.
    """
    bucket, _, prefix = root.removeprefix("s3://").strip("/").partition("/")
    if not root.startswith("s3://") or bucket == logs:
        raise SystemExit(f"DRIFTLINE_ROOT is {root} and --logs {logs}; expected s3://BUCKET/PREFIX and another bucket.")
    place = f"{bucket}/{prefix}".rstrip("/")
    # In an ARN a name has dashes, a statement's id has letters only.
    names = [(f"-{name.replace('_', '-')}", name, re.sub(r"[^A-Za-z0-9]", "", name.title())) for name in products]
    result = {}
    for name, file in ((bucket, "policy.json"), (logs, "logs.json")):
        text = Path(__file__).with_name(file).read_text(encoding="utf-8").replace("BUCKET/PREFIX", place)
        policy = json.loads(text.replace("BUCKET", name).replace("ARN/", arn))
        statements = []
        for statement in policy["Statement"]:
            owners = names or [("", "*", "")]
            for suffix, product, title in owners if "PRODUCT" in statement["Sid"] else owners[:1]:
                one = json.dumps(statement if "PRODUCT" in statement["Sid"] else _with_all(statement, owners))
                one = one.replace("-PRODUCT", suffix).replace("/PRODUCT/", f"/{product}/").replace("PRODUCT", title)
                statements.append(json.loads(one))
        result[name] = json.dumps({**policy, "Statement": statements}, indent=1)
    return result


def _with_all(statement: dict[str, Any], owners: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    """Return a statement for everybody with the accounts of each product."""
    if statement["Principal"] == "*":
        return statement
    accounts = statement["Principal"]["AWS"]
    each = [account.replace("-PRODUCT", suffix) for account in accounts for suffix, _, _ in owners]
    return {**statement, "Principal": {"AWS": list(dict.fromkeys(each))}}


def write(settings: Settings, products: Sequence[str], logs: str, file: Path, *, renews: bool) -> list[str]:
    """Write a key of each account into a file, made where the file has no valid one; return whose keys are new.

    The policies follow the users, so a key that was made can do nothing before.
    """
    policies(settings.root, logs, products, "")  # or nothing is made
    iam, keys, fresh, arns = _client("iam"), {} if renews else read(file), [], set[str]()
    for user in secrets(products):
        created = _request(f"create the user {user}", iam.create_user, "EntityAlreadyExists", UserName=user)
        about = created or _request(f"name the user {user}", iam.get_user, UserName=user)
        arns.add(about["User"]["Arn"].removesuffix(user))
    (arn,) = arns
    for user, secret in secrets(products).items():
        if secret not in keys or keys[secret][ID] not in _ids(iam, user):
            created = _request("make a key", iam.create_access_key, UserName=user)["AccessKey"]
            keys[secret] = {ID: created["AccessKeyId"], SECRET: created["SecretAccessKey"]}
            fresh.append(user)
            _store(file, settings.namespace, keys)
    for bucket, policy in policies(settings.root, logs, products, arn).items():
        _request(f"put the policy of bucket {bucket}", _client("s3").put_bucket_policy, Bucket=bucket, Policy=policy)
    return fresh


def revoke(products: Sequence[str], file: Path) -> list[str]:
    """Delete all keys of our accounts that are not in a file; return their accounts, one per key."""
    iam, keys, revoked = _client("iam"), read(file), []
    for user, secret in secrets(products).items():
        for one in sorted(_ids(iam, user) - {keys[secret][ID]}):
            _request("revoke a key", iam.delete_access_key, UserName=user, AccessKeyId=one)
            revoked.append(user)
    return revoked


def secrets(products: Sequence[str]) -> dict[str, str]:
    """Return the Kubernetes secret of each user at the server."""
    return {
        account.service_account(product): account.store_secret(product)
        for account in ACCOUNTS
        for product in (products if account.is_per_product else ("",))
    }


def read(file: Path) -> Keys:
    """Return the keys in a file by the names of their secrets; none if there is no file."""
    if not file.exists():
        return {}
    try:
        items = json.loads(file.read_bytes())["items"]
        return {
            item["metadata"]["name"]: {name: b64decode(item["data"][name]).decode() for name in (ID, SECRET)}
            for item in items
        }
    except (ValueError, LookupError, TypeError) as problem:
        raise SystemExit(f"{file} does not hold keys as this script writes them: {problem!r}.") from None


def _store(file: Path, namespace: str, keys: Mapping[str, Mapping[str, str]]) -> None:
    items = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "data": {variable: b64encode(text.encode()).decode() for variable, text in key.items()},
        }
        for name, key in keys.items()
    ]
    # For this user alone, and replaced whole: a kill leaves the file before it.
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
        json.dump({"apiVersion": "v1", "kind": "List", "items": items}, opened, indent=1)
    temporary.replace(file)


def _client(service: str) -> Any:
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return boto3.Session(region_name=region).client(service)


def _ids(iam: Any, user: str) -> set[str]:
    listed = _request(f"list the keys of {user}", iam.list_access_keys, UserName=user)
    return {item["AccessKeyId"] for item in listed["AccessKeyMetadata"]}


def _request(purpose: str, call: Any, expected: str = "-", **arguments: str) -> Any:
    """Return the answer to a request, None for an error that was expected; others end the script."""
    try:
        return call(**arguments)
    except (BotoCoreError, ClientError) as problem:
        # Not every server's refusal is one that this client reads: some have no error, only a status.
        response = getattr(problem, "response", {})
        if response.get("Error", {}).get("Code", "").startswith(expected):
            return None
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", "no answer")
        raise SystemExit(
            f"the server did not {purpose}: {problem} ({status}). This needs a key that may administer users, and "
            "AWS's API of users (IAM) at the address of the store or at AWS_ENDPOINT_URL_IAM; where there is none, "
            "make users with the server's own tools, and put on the buckets what --print prints."
        ) from None


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Problem as problem:
        raise SystemExit(str(problem)) from None

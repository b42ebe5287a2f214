"""Print the policy of the store's bucket: which account may write and delete where.

A bucket's policy, as S3 knows it, for `aws s3api put-bucket-policy` or any server that enforces policies by prefix.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from platform_assets.base import naming
from platform_assets.base.accounts import ACCOUNTS, LEDGERS, WEBSERVER, WRITES_LOGS, Account
from platform_assets.base.settings import PRODUCT

PRINCIPAL = "arn:aws:iam::ACCOUNT:role/{account}"
"""Who has an account of ours at the cloud; `{account}` is the name of its Kubernetes service account."""
BYTES_MAX = 20 * 1024
"""S3's own limit."""
VERSION = "2012-10-17"
EVERYBODY = "*"
_CHANGING = (naming.LEASES, naming.COST, naming.PRUNED)
"""Ledgers with files that are overwritten: heartbeats, and what can be recomputed."""
_IF_OVERWRITING = {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}}


@dataclass(frozen=True)
class Statement:
    """One statement of a policy.

    Attributes:
        resources: below `arn:aws:s3:::`.
    """

    sid: str
    principals: Sequence[str]
    actions: Sequence[str]
    resources: Sequence[str]
    effect: str = "Allow"
    condition: dict[str, dict[str, str]] = field(default_factory=dict)

    def document(self) -> dict[str, object]:
        """Return the statement as policies are written."""
        everybody = list(self.principals) == [EVERYBODY]
        return {
            "Sid": self.sid,
            "Effect": self.effect,
            "Principal": EVERYBODY if everybody else {"AWS": list(self.principals)},
            "Action": [f"s3:{action}" for action in self.actions],
            "Resource": [f"arn:aws:s3:::{path}" for path in self.resources],
            **({"Condition": self.condition} if self.condition else {}),
        }


def text(root: str, products: Sequence[str], principal: str, *, is_create_only: bool = False) -> str:
    """Return the policy of the bucket in which the store lies.

    Args:
        root: `s3://bucket/path`.
        products: names of those whose steps and services have accounts of their own; none: they share two.
        principal: see `PRINCIPAL`.
        is_create_only: also deny writing a ledger's record over another one. Only AWS can tell; elsewhere such a
            condition may refuse every record.

    Raises:
        ValueError: the store is a folder, or the policy is larger than S3 accepts.
    """
    bucket, _, path = root.removeprefix("s3://").strip("/").partition("/")
    if not root.startswith("s3://"):
        raise ValueError(f"DRIFTLINE_ROOT is {root}; expected s3://bucket/path: a folder has no policy.")
    if "{account}" not in principal:
        raise ValueError(f"--principal is {principal!r}; expected a text with {{account}}, such as {PRINCIPAL}.")
    below = naming.join(bucket, path) + "/" if path else f"{bucket}/"
    statements = [*_shared(bucket, below, products, principal), *_writing(below, products, principal)]
    if is_create_only:
        places = sorted({place for account in ACCOUNTS for place in account.creates if place.startswith(LEDGERS)})
        # A ledger's `HEAD` is a hint, not a record, so only `*.json` is denied.
        paths = [
            f"{below}{place.replace(PRODUCT, '*')}*.json"
            for place in places
            if not place.endswith(tuple(f"/{name}/" for name in _CHANGING))
        ]
        statements.append(
            Statement("CreateOnly", [EVERYBODY], ["PutObject"], paths, effect="Deny", condition=_IF_OVERWRITING)
        )
    result = _document(statements)
    size = len(json.dumps(json.loads(result), separators=(",", ":")))
    if size > BYTES_MAX:
        raise ValueError(
            f"the policy of {len(products)} products has {size:,} bytes, and S3 takes {BYTES_MAX:,}; give some of the "
            "products a bucket of their own."
        )
    return result


def logs_text(bucket: str, principal: str) -> str:
    """Return the policy of the bucket with the output of runs, which webservers show.

    Args:
        principal: see `PRINCIPAL`.
    """
    writers, readers = (
        [principal.replace("{account}", account.service_account()) for account in accounts]
        for accounts in (WRITES_LOGS, (*WRITES_LOGS, WEBSERVER))
    )
    return _document(
        [
            Statement("List", readers, ["ListBucket"], [bucket]),
            Statement("Read", readers, ["GetObject"], [f"{bucket}/*"]),
            Statement("Write", writers, ["PutObject", "AbortMultipartUpload"], [f"{bucket}/*"]),
        ]
    )


def _document(statements: Sequence[Statement]) -> str:
    return json.dumps({"Version": VERSION, "Statement": [item.document() for item in statements]}, indent=1)


def _shared(bucket: str, below: str, products: Sequence[str], principal: str) -> Iterable[Statement]:
    """Yield what holds for everybody: all read, nobody deletes from a ledger."""
    names = {account.service_account(product) for account, product in accounts_of(products)}
    everybody = sorted(principal.replace("{account}", name) for name in names)
    yield Statement("List", everybody, ["ListBucket"], [bucket])
    yield Statement("Read", everybody, ["GetObject"], [f"{below}*"])
    yield Statement(
        "KeepLedgers", [EVERYBODY], ["DeleteObject", "DeleteObjectVersion"], [f"{below}{LEDGERS}*"], effect="Deny"
    )


def _writing(below: str, products: Sequence[str], principal: str) -> Iterable[Statement]:
    """Yield what each account may write, and from where it may delete."""
    for account, product in accounts_of(products):
        name = account.service_account(product)
        title = "".join(part.capitalize() for part in name.removeprefix("driftline-").split("-"))
        rights = (
            ("Write", ["PutObject", "AbortMultipartUpload"], account.creates),
            ("Delete", ["DeleteObject"], account.deletes),
        )
        for verb, actions, places in rights:
            if places:
                paths = [f"{below}{place.replace(PRODUCT, product or '*')}*" for place in places]
                yield Statement(f"{verb}{title}", [principal.replace("{account}", name)], actions, paths)


def accounts_of(products: Sequence[str]) -> Iterable[tuple[Account, str]]:
    """Yield each account, with its product if it is one product's."""
    for account in ACCOUNTS:
        for product in (products or ("",)) if account.is_per_product else ("",):
            yield account, product

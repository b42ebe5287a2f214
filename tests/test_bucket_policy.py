"""The bucket's policy, on a real S3 server: each account writes where it must, and every other write is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from platform_assets.base import naming
from platform_assets.base.accounts import ACCOUNTS, LEDGERS, Account
from platform_assets.base.problems import LedgerProblem
from platform_assets.base.settings import PRODUCT
from platform_assets.cli import main
from platform_assets.operations import bucket_policy
from platform_assets.store.ledgers import Ledgers
from tests.doubles import s3_server
from tests.doubles.s3_server import S3Server

PRODUCTS = ("orders", "late_orders")
BUCKET, PATH = "driftline-policy", "prod"
ROOT = f"s3://{BUCKET}/{PATH}"
PRINCIPAL = "arn:aws:iam::000000000000:user/{account}"
PLACES = sorted({place for account in ACCOUNTS for place in (*account.creates, *account.deletes)} | {"landing/"})
USERS = [
    (account, account.service_account(product), product if account.is_per_product else "")
    for account in ACCOUNTS
    for product in (PRODUCTS if account.is_per_product else PRODUCTS[:1])
]
"""Each account with its user at the server, and the only product for which it works."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    users = [user for _, user, _ in USERS]
    with s3_server.running(tmp_path_factory.mktemp("s3"), users=users) as running:
        running.make_bucket(BUCKET)
        running.put_policy(BUCKET, bucket_policy.text(ROOT, PRODUCTS, PRINCIPAL))
        yield running


def paths(places: tuple[str, ...] | list[str], only: str = "") -> dict[str, str]:
    """Return an object's path in each place of each product, or of one, by what it is."""
    products = (only,) if only else PRODUCTS
    return {
        f"{place} of {product}": f"{PATH}/{place.replace(PRODUCT, product)}00000001.json"
        for place in places
        for product in (products if PRODUCT in place else PRODUCTS)
    }


def is_allowed(request: Any, **arguments: Any) -> bool:
    """Make a request; return whether the server did it. Any other refusal than that of a right is an error."""
    try:
        request(Bucket=BUCKET, **arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] != "AccessDenied":
            raise
        return False
    return True


@pytest.mark.parametrize(("account", "user", "only"), USERS, ids=[user for _, user, _ in USERS])
def test_an_account_writes_where_it_must_and_nowhere_else(
    server: S3Server, account: Account, user: str, only: str
) -> None:
    client, expected = server.client(user), paths(account.creates, only)
    results = {what: is_allowed(client.put_object, Key=path, Body=b"{}") for what, path in paths(PLACES).items()}
    assert {what for what, allowed in results.items() if allowed} == set(expected)
    assert len(expected) < len(results)


@pytest.mark.parametrize(("account", "user", "only"), USERS, ids=[user for _, user, _ in USERS])
def test_an_account_deletes_where_it_must_and_never_from_a_ledger(
    server: S3Server, account: Account, user: str, only: str
) -> None:
    client, owner = server.client(user), server.client()
    for path in paths(PLACES).values():
        owner.put_object(Bucket=BUCKET, Key=path, Body=b"{}")
    results = {what: is_allowed(client.delete_object, Key=path) for what, path in paths(PLACES).items()}
    assert {what for what, allowed in results.items() if allowed} == set(paths(account.deletes, only))
    assert not [what for what, allowed in results.items() if allowed and what.startswith(LEDGERS)]


def test_everybody_reads_and_lists(server: S3Server) -> None:
    server.client().put_object(Bucket=BUCKET, Key=f"{PATH}/landing/orders/1.csv", Body=b"1")
    for _, user, _ in USERS:
        client = server.client(user)
        assert client.get_object(Bucket=BUCKET, Key=f"{PATH}/landing/orders/1.csv")["Body"].read() == b"1"
        assert client.list_objects_v2(Bucket=BUCKET, Prefix=f"{PATH}/landing/orders/")["KeyCount"] == 1
        assert not is_allowed(client.put_object, Key="another/root.json", Body=b"{}")
        assert not is_allowed(client.get_object, Key="another/root.json")


@pytest.mark.parametrize(
    ("user", "ledger", "is_permitted"),
    [
        ("driftline-advance", naming.RELEASES, False),
        ("driftline-advance", naming.VERDICTS, False),
        ("driftline-advance", naming.DECISIONS, True),
        ("driftline-intervention", naming.RELEASES, False),
        ("driftline-code", naming.RELEASES, False),
        ("driftline-step-orders", naming.RELEASES, False),
        ("driftline-step-orders", naming.VERDICTS, False),
        ("driftline-service-orders", naming.RELEASES, False),
        ("driftline-release", naming.RELEASES, True),
        ("driftline-release", naming.VERDICTS, False),
        ("driftline-retrain", naming.VERDICTS, True),
    ],
)
def test_a_release_or_a_verdict_is_refused_from_an_account_that_it_is_not_for(
    server: S3Server, monkeypatch: pytest.MonkeyPatch, user: str, ledger: str, is_permitted: bool
) -> None:
    for name, text in server.environment(access_key=user).items():
        monkeypatch.setenv(name, text)
    ledgers = Ledgers(ROOT, "orders")
    if is_permitted:
        ledgers.create(ledger, user, {"product": "orders"})
        assert ledgers.read(ledger, user) == {"product": "orders"}
        return
    with pytest.raises(LedgerProblem, match=r"refuses our key \(AccessDenied\); check"):
        ledgers.create(ledger, user, {"product": "orders"})
    assert ledgers.read(ledger, user) is None


def test_the_owner_cannot_delete_from_a_ledger_either(server: S3Server) -> None:
    owner, path = server.client(), f"{PATH}/ledgers/orders/{naming.RELEASES}/00000009.json"
    owner.put_object(Bucket=BUCKET, Key=path, Body=b"{}")
    assert not is_allowed(owner.delete_object, Key=path)


def test_a_create_only_policy_is_accepted_but_not_enforced_by_this_server(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in server.environment(access_key="driftline-release").items():
        monkeypatch.setenv(name, text)
    server.make_bucket("create-only")
    policy = bucket_policy.text("s3://create-only", PRODUCTS, PRINCIPAL, is_create_only=True)
    server.put_policy("create-only", policy)
    number = Ledgers("s3://create-only", "orders").append(naming.RELEASES, {"product": "orders"})
    path = f"ledgers/orders/{naming.RELEASES}/{number:08d}.json"
    # This server ignores the condition, so a record is overwritten; AWS would refuse the request.
    server.client("driftline-release").put_object(Bucket="create-only", Key=path, Body=b"{}")


def test_the_command_prints_the_policy_for_the_shipped_products(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRIFTLINE_ROOT", ROOT)
    monkeypatch.setenv("DRIFTLINE_STEP_SERVICE_ACCOUNT", "driftline-step-{product}")
    assert main(["policy", "--create-only"]) == 0
    statements = {item["Sid"]: item for item in json.loads(capsys.readouterr().out)["Statement"]}
    step = statements["WriteStepFlightDelays"]
    assert step["Principal"] == {"AWS": ["arn:aws:iam::ACCOUNT:role/driftline-step-flight-delays"]}
    assert f"arn:aws:s3:::{BUCKET}/{PATH}/ledgers/flight_delays/leases/*" in step["Resource"]
    assert all(sid.isalnum() for sid in statements)
    assert statements["CreateOnly"]["Condition"]["Null"] == {"s3:if-none-match": "true"}
    assert not any("/leases/" in path for path in statements["CreateOnly"]["Resource"])


def test_without_accounts_per_product_the_policy_names_none_because_aws_refuses_missing_roles(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRIFTLINE_ROOT", ROOT)
    monkeypatch.setenv("DRIFTLINE_STEP_SERVICE_ACCOUNT", "driftline-step")
    assert main(["policy"]) == 0
    statements = {item["Sid"]: item for item in json.loads(capsys.readouterr().out)["Statement"]}
    assert statements["WriteStep"]["Principal"] == {"AWS": ["arn:aws:iam::ACCOUNT:role/driftline-step"]}
    assert f"arn:aws:s3:::{BUCKET}/{PATH}/ledgers/*/leases/*" in statements["WriteStep"]["Resource"]
    places = ("prediction_log", "prediction_log_clock")
    assert statements["WriteService"]["Resource"] == [f"arn:aws:s3:::{BUCKET}/{PATH}/{place}/*/*" for place in places]


@pytest.mark.parametrize(
    ("root", "principal", "message"),
    [
        ("/data/store", PRINCIPAL, "expected s3://bucket/path: a folder has no policy"),
        (ROOT, "arn:aws:iam::1:role/driftline", r"expected a text with \{account\}"),
    ],
)
def test_what_cannot_be_a_policy_is_refused(root: str, principal: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bucket_policy.text(root, PRODUCTS, principal)


def test_a_policy_larger_than_s3_takes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the policy of 40 products has .* bytes, and S3 takes 20,480"):
        bucket_policy.text(ROOT, [f"a_product_{number}" for number in range(40)], PRINCIPAL)

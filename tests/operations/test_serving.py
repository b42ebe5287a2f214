"""What is wrong with a service, from what its processes sent to the store."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from platform_assets.base import naming
from platform_assets.base.settings import Settings
from platform_assets.operations import status
from platform_assets.operations.status import serving
from platform_assets.store.ledgers import Ledgers
from platform_assets.store.product_store import ProductStore
from tests.doubles import documents
from tests.doubles.shipped import SPEC, ship

OLD, NEW = "1" * 64, "2" * 64
FIRST, SECOND = (
    "driftline-recorded-5d9c-abcde.driftline-7-0123abcd",
    "driftline-recorded-5d9c-fghij.driftline-7-1234abcd",
)
APPLY = "driftline manifests recorded | kubectl apply --filename=-"


@pytest.fixture
def product(tmp_path: Path) -> ProductStore:
    """A product with release 1 and, of another contract, release 2."""
    settings = Settings(
        environment="cluster", root=str(tmp_path / "store"), state=tmp_path / "state", serving_ships="true"
    )
    ledgers = Ledgers(settings.root, SPEC.name)
    for contract in (OLD, NEW):
        ledgers.append(naming.RELEASES, documents.release(contract_sha256=contract))
    return ProductStore(SPEC, settings)


def send(product: ProductStore, process: str = FIRST, *, ago_s: float = 5.0, **members: Any) -> None:
    at = datetime.now(UTC) - timedelta(seconds=ago_s)
    ship(product.settings.root, at, b"", process=process, **{"kind": "heartbeat", "release": 2, **members})


def messages(product: ProductStore) -> list[tuple[str, str]]:
    return [(todo.text, todo.steps[0].command) for todo in serving.todos(product)]


def test_a_service_that_serves_the_newest_release_needs_nothing(product: ProductStore) -> None:
    send(product)
    send(product, SECOND)
    assert messages(product) == []


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_release_that_nobody_serves_is_named(product: ProductStore, is_gone: bool) -> None:
    if is_gone:
        send(product, ago_s=300)
        send(product, SECOND, kind="goodbye")
    ((sentence, command),) = messages(product)
    assert sentence.startswith(
        "Release 2 is live, and no process of its service sent anything to the store in the last 180 s"
    )
    assert command == APPLY
    assert sentence in status.as_text(status.of_product(product))


def test_a_contract_that_no_deployment_serves_is_named(product: ProductStore) -> None:
    send(product, release=1)
    ((sentence, command),) = messages(product)
    assert sentence == (
        "Release 2 has another contract than release 1, which driftline-recorded-5d9c-abcde.driftline still serves: "
        "roll out the Bento that was built for it."
    )
    assert command == APPLY


def test_a_service_that_follows_no_release_is_named_once_it_has_looked(product: ProductStore) -> None:
    send(product, kind="hello", release=None)
    assert messages(product) == []
    send(product, ago_s=4, release=None)
    ((sentence, command),) = messages(product)
    assert sentence.startswith("driftline-recorded-5d9c-abcde.driftline follows no release and answers with the model")
    assert command == (
        "kubectl get --raw /api/v1/namespaces/driftline/pods/driftline-recorded-5d9c-abcde:3001/proxy/readyz"
    )


def test_two_deployments_are_named_with_their_namespaces(product: ProductStore) -> None:
    send(product)
    send(product, "driftline-recorded-5d9c-klmno.staging-7-0123abcd")
    ((sentence, command),) = messages(product)
    assert sentence.startswith(
        "recorded is served by 2 Deployments, driftline/driftline-recorded, staging/driftline-recorded: "
    )
    assert command == "kubectl --namespace=driftline delete deployment driftline-recorded"


@pytest.mark.parametrize(("offset_s", "words"), [(61.0, "61 s behind"), (-61.0, "61 s ahead of")])
def test_a_clock_a_minute_off_is_named_once_per_server(product: ProductStore, offset_s: float, words: str) -> None:
    for process in (FIRST, FIRST.replace("-7-", "-8-")):
        send(product, process, clock_offset_s=offset_s)
    ((sentence, command),) = messages(product)
    assert sentence.startswith(f"The clock of driftline-recorded-5d9c-abcde.driftline is {words} the store's")
    assert command == "kubectl --namespace=driftline get pod driftline-recorded-5d9c-abcde --output=wide"


def test_on_a_laptop_and_before_the_first_release_nobody_is_expected(product: ProductStore, tmp_path: Path) -> None:
    assert serving.todos(ProductStore(SPEC, product.settings.replace(serving_ships="false"))) == []
    assert serving.todos(ProductStore(SPEC, product.settings.replace(root=str(tmp_path / "empty")))) == []

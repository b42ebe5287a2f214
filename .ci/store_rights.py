"""Write docs/store_rights.md from `platform_assets/base/accounts.py`; called by `make reference`."""

from __future__ import annotations

from pathlib import Path

from platform_assets.base.accounts import ACCOUNTS
from platform_assets.base.settings import PRODUCT

PAGE = Path(__file__).resolve().parents[1] / "docs" / "store_rights.md"
TEXT = """\
# Rights at the store

What each account may write in the bucket, below `DRIFTLINE_ROOT`. Generated from `platform_assets/base/accounts.py` by
`make reference`; `driftline policy` prints the same as the bucket's policy, and `driftline store-keys` puts it on a
server with a key for each account. `tests/test_bucket_policy.py` tries each write on a real S3 server, forbidden or
not; `tests/test_store_keys.py` what a stolen key forges, deletes and grants itself.

All accounts may read the store. Nobody may delete from `ledgers/`, not even the bucket's owner while the policy is
there. `PRODUCT` is any product for accounts of runs and sensors, and one product for steps and services, which have an
account per product if `{product}` is in `DRIFTLINE_STEP_SERVICE_ACCOUNT` or `DRIFTLINE_STEP_SECRET`
([how](operate.md#who-asks-for-a-run-and-with-which-rights)): then a step of one product cannot write to another's
tables, records or ledgers.

{table}

Which account a run gets is decided by its job ([decision 35](decisions/0035-accounts-and-identity.md)). Landed files
are the upstreams': none of these accounts writes below `landing/`.

## What the policy does not do
- **Create-only.** The code never writes over a record, but a policy that forbids it needs the condition
  `s3:if-none-match`, which only AWS evaluates. There `driftline policy --create-only` adds it. SeaweedFS ignores it;
  other servers may refuse every record with it. Tried on no AWS account.
- **Blobs, saves and messages** (`artifacts/`, `saves/`, `pipes/`) have no product in their names, so a step can write
  over another product's. A blob's name is the sha256 of its bytes, and readers verify it: a damaged one is refused, not
  used. A save's bytes are verified against its index, which whoever can write saves can change too.
- **Reading.** Each account reads all products.
- **The logs' bucket** (`DRIFTLINE_LOGS_BUCKET`) has a policy of its own (`--logs`): runs and the code server write,
  webservers read. A run can write over another's output.
"""


def render() -> str:
    """Return the page."""
    rows = ["| account | is for | creates below | deletes below |", "|---|---|---|---|"]
    for account in ACCOUNTS:
        name = account.service_account("PRODUCT")
        creates, deletes = (
            ", ".join(f"`{place.replace(PRODUCT, 'PRODUCT')}`" for place in places) or "nothing"
            for places in (account.creates, account.deletes)
        )
        rows.append(f"| `{name}` | {account.is_for} | {creates} | {deletes} |")
    return TEXT.replace("{table}", "\n".join(rows))


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")

"""Ask the service's own decoder about rows of features: what it refuses, nobody could ever ask.

Belongs here: rows as requests, and their refusal as a sentence. Does not belong here: what a request may hold
(`serving.contract`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import polars as pl

from platform_assets.checking.told import Problem, counted, file_of, mend_of, own
from platform_assets.product.contract import Cell, contract_of, request_of
from platform_assets.serving.contract import Contract, ContractProblem
from platform_assets.serving.requests import Refused
from platform_assets.specs.base import ProductSpec

MOST, MOST_IMAGES = 2_000, 200
"""How many rows are asked about: some 0.1 ms each; an image is some milliseconds."""


def check_requests(spec: ProductSpec, built: pl.DataFrame) -> str:
    """Send rows of features, evenly spread, through the service's decoder; return what to tell of them."""
    try:
        contract = Contract({**contract_of(spec)})
    except ContractProblem as problem:
        raise Problem(f"{problem} The file is {file_of(spec.name)}.") from None
    most = MOST if spec.image is None else MOST_IMAGES
    asked = built.gather_every(-(-built.height // most))
    longest = 0
    for row in asked.iter_rows(named=True):
        body = own(spec, f"a request for {shown(row)}", _body, spec, row)
        longest = max(longest, len(body))
        try:
            if len(body) > contract.max_body_bytes:
                raise Refused(
                    413, f"the body has {len(body):,} bytes; expected at most {contract.max_body_bytes:,} (`service`)."
                )
            contract.decode(body)
        except Refused as refused:
            raise Problem(
                f"the service would refuse features() of {spec.name} for {shown(row)}, with "
                f"{refused.status}{'' if refused.field is None else f', because of {refused.field}'}: "
                f"{refused.sentence} {mend_of(spec)}"
            ) from None
    return f"the service would take {counted(asked.height, 'row')}, at most {longest:,} bytes each"


def shown(row: Mapping[str, Cell]) -> str:
    """Return which row is meant."""
    entity, key = str(row["entity"]), str(row["key"])
    return f"{entity if len(entity) <= 60 else entity[:60] + '...'!r} of {key}"


def _body(spec: ProductSpec, row: Mapping[str, Cell]) -> bytes:
    return json.dumps(request_of(spec, row), allow_nan=False).encode()

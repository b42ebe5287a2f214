"""Send rows of features through the service's own decoder: what it refuses, no caller could ever send."""

from __future__ import annotations

import json
from collections.abc import Mapping

import polars as pl

from platform_assets.base.wording import counted
from platform_assets.check.messages import Problem, call, file_of, fix_in
from platform_assets.data.request_rows import Cell, request_of
from platform_assets.product.contract import contract_of
from platform_assets.product.spec import Product
from platform_assets.serving.answer.contract import Contract, ContractProblem
from platform_assets.serving.answer.decoding import Decoding
from platform_assets.serving.answer.requests import Refused

MOST, MOST_IMAGES = 2_000, 200
"""How many rows are sent: about 0.1 ms each, some milliseconds with an image."""


def check_requests(spec: Product, built: pl.DataFrame) -> str:
    """Send rows of features, evenly spread, through the service's decoder; return a summary."""
    try:
        contract = Contract({**contract_of(spec)})
    except ContractProblem as problem:
        raise Problem(f"{problem} The file is {file_of(spec.name)}.") from None
    decoding = Decoding(contract)
    most = MOST if spec.image is None else MOST_IMAGES
    sample = built.gather_every(-(-built.height // most))
    longest = 0
    for row in sample.iter_rows(named=True):
        body = call(spec, f"a request for {shown(row)}", _body, spec, row)
        longest = max(longest, len(body))
        try:
            if len(body) > contract.max_body_bytes:
                raise Refused(
                    413, f"the body has {len(body):,} bytes; expected at most {contract.max_body_bytes:,} (`service`)."
                )
            decoding.decode(body)
        except Refused as refused:
            raise Problem(
                f"the service would refuse features() of {spec.name} for {shown(row)}, with "
                f"{refused.status}{'' if refused.field is None else f', because of {refused.field}'}: "
                f"{refused.sentence} {fix_in(spec)}"
            ) from None
    return f"the service would take {counted(sample.height, 'row')}, at most {longest:,} bytes each"


def shown(row: Mapping[str, Cell]) -> str:
    """Name a row by its entity and key."""
    entity, key = str(row["entity"]), str(row["key"])
    return f"{entity if len(entity) <= 60 else entity[:60] + '...'!r} of {key}"


def _body(spec: Product, row: Mapping[str, Cell]) -> bytes:
    return json.dumps(request_of(spec, row), allow_nan=False).encode()

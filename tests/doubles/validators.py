"""Compare the two readings of a row: the decoder's, and the one that explains."""

from __future__ import annotations

from unittest.mock import patch

from platform_assets.serving import diagnosis, pictures
from platform_assets.serving.contract import Contract
from platform_assets.serving.requests import Refused


def agree(contract: Contract, body: bytes) -> None:
    """Assert that the diagnosis refuses a row exactly if the decoder does; files of pictures are read by neither."""
    with patch.object(diagnosis, "check_row"), patch.object(pictures, "grey_levels", return_value=b""):
        try:
            contract.decode(body)
            is_good = True
        except Refused:
            is_good = False
    try:
        diagnosis.check_row(contract, body, "", contract.between(None))
        is_explained = False
    except Refused:
        is_explained = True
    assert is_explained != is_good

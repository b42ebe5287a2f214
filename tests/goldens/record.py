"""Record goldens again: `python -m tests.goldens.record [PRODUCT ...]`, all of them by default.

`python -m tests.goldens.record digests` records only the code digests of stages, `... versions` adds the present
versions of their rows.
"""

import json
import logging
import os
import sys
import tempfile
from pathlib import Path

from tests.goldens import stages, versions
from tests.goldens.comparing import as_text, path_of, with_answers_recorded_before
from tests.goldens.content import gathered
from tests.goldens.products import WALKS
from tests.goldens.walk import settings_in, walk


def main(products: list[str]) -> None:
    of_code = {"digests": stages, "versions": versions}
    if len(products) == 1 and products[0] in of_code:
        of_code[products[0]].record()
        print(of_code[products[0]].PLACE)
        return
    if strangers := set(products) - set(WALKS):
        sys.exit(f"there is no golden of {', '.join(sorted(strangers))}; there are {', '.join(WALKS)}.")
    logging.disable(logging.WARNING)
    for product in products or WALKS:
        with tempfile.TemporaryDirectory() as root:
            settings = settings_in(Path(root))
            os.environ |= settings.to_environment()
            scenario = WALKS[product]()
            document = gathered(scenario, settings, walk(scenario, settings))
        path = path_of(product)
        before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        document = with_answers_recorded_before(json.loads(json.dumps(document)), before)
        path.write_text(as_text(document) + "\n", encoding="utf-8")
        print(path_of(product))


if __name__ == "__main__":
    main(sys.argv[1:])

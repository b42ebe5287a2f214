"""Write this machine's pip configuration to a file and print the places it names: `python pip_settings.py PIP_CONF`.

So mirrors, certificates, local wheels and constraints also apply where an image or a bare system is set up. Prints one
absolute path per line, of what exists; needs pip, and writes an empty configuration without.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

OPTIONS = (
    *("index-url", "extra-index-url", "no-index", "find-links", "constraint", "cert", "client-cert", "trusted-host"),
    *("proxy", "timeout", "retries"),
)

listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
options: dict[str, str] = {}
for line in listed.stdout.splitlines():
    option = re.fullmatch(r"(global|install|:env:)\.(?:default-)?([\w-]+)=(.*)", line)
    if option and option[2] in OPTIONS:
        options[option[2]] = ast.literal_eval(option[3])
bundle = os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE")
if bundle:
    options.setdefault("cert", bundle)
lines = [f"{name} = {' '.join(value.split())}\n" for name, value in options.items()]
Path(sys.argv[1]).write_text("".join(["[global]\n", *lines]), encoding="utf-8")
places = {Path(word.removeprefix("file://")) for value in options.values() for word in value.split()}
print(*sorted(place for place in places if place.is_absolute() and place.exists()), sep="\n")

"""Print the CycloneDX SBOM of an image: its Python packages, as cyclonedx-bom lists them, and Debian's packages.

Usage: python sbom.py PYTHON DPKG_STATUS [NAME=SHA256 ...]. Each NAME=SHA256 adds the digest of a package's file. The
document holds no time and no random number: the same image has the same one. Ends with an error unless it is valid.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import uuid
from email.parser import Parser
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

VERSION = "1.6"


def python_packages(python: str) -> dict:
    """Return the document of what an interpreter can import."""
    argv = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", f"--spec-version={VERSION}"]
    return json.loads(subprocess.run([*argv, python], capture_output=True, text=True, check=True).stdout)


def debian_packages(status: Path) -> list[dict]:
    """Return the components of installed Debian packages."""
    components = []
    for paragraph in status.read_text(encoding="utf-8").split("\n\n"):
        package = Parser().parsestr(paragraph, headersonly=True)
        if package["Status"] != "install ok installed":
            continue
        purl = f"pkg:deb/debian/{package['Package']}@{package['Version']}?arch={package['Architecture']}"
        components.append(
            {
                "type": "library",
                "bom-ref": purl,
                "name": package["Package"],
                "version": package["Version"],
                "purl": purl,
            }
        )
    return components


def document(python: str, status: Path, digests: dict[str, str]) -> dict:
    """Return the SBOM of an image."""
    sbom = python_packages(python)
    for component in sbom["components"]:
        if component["name"] in digests:
            component["hashes"] = [{"alg": "SHA-256", "content": digests[component["name"]]}]
        component.pop("externalReferences", None)  # with paths of the build among them
    sbom["components"] += debian_packages(status)
    sbom.pop("serialNumber", None)
    content = hashlib.sha256(json.dumps(sbom, sort_keys=True).encode()).digest()
    return {**sbom, "serialNumber": uuid.UUID(bytes=content[:16], version=4).urn}


if __name__ == "__main__":
    digests = dict(argument.split("=", 1) for argument in sys.argv[3:])
    text = json.dumps(document(sys.argv[1], Path(sys.argv[2]), digests), indent=1, sort_keys=True)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"the SBOM is not valid CycloneDX {VERSION}: {error}")
    print(text)

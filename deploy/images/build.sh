#!/usr/bin/env bash
# Build the trainer image with podman. Prints its name by digest, for DRIFTLINE_TRAINER_IMAGE; on stderr its libraries,
# for DRIFTLINE_TRAINER_LIBRARIES.
# Usage: BASE=... TORCH_INDEX=... NAME=... deploy/images/build.sh; all three are optional.
#
# This machine's pip configuration (mirrors, certificates, local wheels, constraints) also applies in the build, through
# mounted files that never become part of the image.
set -euo pipefail
cd "$(dirname "$0")/../.."

name="${NAME:-localhost/driftline-trainer}"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

# Debian's own python3 may have no pip; without any, there is no pip configuration to pass on.
python=python3
if [ -x .venv/bin/python ]; then python=.venv/bin/python; fi
"$python" - "$folder/pip.conf" >"$folder/mounts" <<'PYTHON'
import ast, os, re, subprocess, sys
from pathlib import Path

listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
about = "index-url extra-index-url no-index find-links constraint cert client-cert trusted-host proxy timeout retries"
options = {}
for line in listed.stdout.splitlines():
    option = re.fullmatch(r"(global|install|:env:)\.(?:default-)?([\w-]+)=(.*)", line)
    if option and option[2] in about.split():
        options[option[2]] = ast.literal_eval(option[3])
bundle = os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE")
if bundle:
    options.setdefault("cert", bundle)
lines = [f"{name} = {' '.join(value.split())}\n" for name, value in options.items()]
Path(sys.argv[1]).write_text("".join(["[global]\n", *lines]), encoding="utf-8")
places = {Path(word.removeprefix("file://")) for value in options.values() for word in value.split()}
print(*sorted(f"{place}:{place}:ro" for place in places if place.is_absolute() and place.exists()), sep="\n")
PYTHON

mounts=(--volume "$folder/pip.conf:/etc/pip.conf:ro")
while read -r mount; do mounts+=(--volume "$mount"); done < <(grep . "$folder/mounts")

podman build --quiet --pull=missing --network=host --format=oci "${mounts[@]}" \
    ${BASE:+--build-arg "BASE=$BASE"} ${TORCH_INDEX:+--build-arg "TORCH_INDEX=$TORCH_INDEX"} \
    --file deploy/images/trainer.Dockerfile --tag "$name:latest" . >/dev/null
# A fingerprint contains these versions: launchers read them from the image's label.
libraries="$(podman run --rm --network=none "$name:latest" python -m platform_assets.libraries)"
echo "FROM $name:latest" | podman build --quiet --pull=never --format=oci --label "driftline.libraries=$libraries" \
    --tag "$name:latest" --file - >/dev/null
echo "DRIFTLINE_TRAINER_LIBRARIES='$libraries' for Kubernetes, where no label is read" >&2
podman image inspect "$name:latest" --format "$name@{{.Digest}}"

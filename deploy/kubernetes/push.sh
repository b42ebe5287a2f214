#!/usr/bin/env bash
# Push the images that `make images` built last, and write their digests into an overlay's values. Registries may store an
# image differently, so the digest is that of the push.
# Usage: deploy/kubernetes/push.sh REGISTRY OVERLAY, for example registry.example/team deploy/kubernetes/overlays/mine
set -euo pipefail
name="${NAME:-localhost/driftline}" # as in build.sh
registry="${1:?a registry, such as registry.example/team}" values="${2:?an overlay}/values/kustomization.yaml"
[ -w "$values" ] || { echo "$values is missing or cannot be written: name an overlay, such as deploy/kubernetes/overlays/production" >&2; exit 1; }
digest="$(mktemp)"
trap 'rm -f "$digest"' EXIT
for image in platform trainer service; do
    podman push --quiet --digestfile "$digest" "$name-$image:latest" "$registry/driftline-$image:latest"
    sed -i "/name: driftline-$image\$/,/digest:/ {
        s|newName: .*|newName: $registry/driftline-$image|
        s|digest: .*|digest: $(cat "$digest")|
    }" "$values"
    echo "$registry/driftline-$image@$(cat "$digest")"
done
libraries="$(podman image inspect $name-trainer:latest --format '{{index .Labels "driftline.libraries"}}')"
sed -i "s|DRIFTLINE_TRAINER_LIBRARIES=.*|DRIFTLINE_TRAINER_LIBRARIES=$libraries|" "$values"

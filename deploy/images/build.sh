#!/usr/bin/env bash
# Build the images with podman. Prints the name of each by digest; on stderr their sizes, and the trainer's libraries for
# DRIFTLINE_TRAINER_LIBRARIES.
# Usage: BASE=... TORCH_INDEX=... NAME=... deploy/images/build.sh [platform] [service] [trainer]; all is optional.
#   BASE  an image by digest; default: this machine's Debian (base.sh)
#   NAME  what an image's name begins with, before -platform and so on; default: localhost/driftline
#   NO_CACHE  if set, no layer of an earlier build is used
#
# This machine's pip configuration (mirrors, certificates, local wheels, constraints) also applies in the build, through
# mounted files that never become part of an image.
set -euo pipefail
cd "$(dirname "$0")/../.."

images=("$@")
[ $# -gt 0 ] || images=(platform service trainer)
for image in "${images[@]}"; do
    case "$image" in
    platform | service | trainer) ;;
    *) echo "IMAGES names $image; expected some of platform, service, trainer" >&2 && exit 1 ;;
    esac
done
# Shows progress, and ends podman and its containers when this is interrupted.
[ -n "${BUILD_LOG:-}" ] || exec python3 deploy/images/supervise.py deploy/images/build.sh "${images[@]}"
name="${NAME:-localhost/driftline}"
echo "== base" >&"$BUILD_LOG"
base="${BASE:-$(deploy/images/base.sh 2>&"$BUILD_LOG")}"
case "$base" in
localhost/*) base="$(podman image inspect "$base" --format "${base%%:*}@{{.Digest}}")" ;;
*@sha256:*) ;;
*) echo "BASE=$base: name it by digest, because a tag may be another image tomorrow" >&2 && exit 1 ;;
esac
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

# Debian's own python3 may have no pip; without any, there is no pip configuration to pass on.
python=python3
if [ -x .venv/bin/python ]; then python=.venv/bin/python; fi
"$python" deploy/images/pip_settings.py "$folder/pip.conf" >"$folder/places"
mounts=(--volume "$folder/pip.conf:/etc/pip.conf:ro")
while read -r place; do mounts+=(--volume "$place:$place:ro"); done < <(grep . "$folder/places")

# The same content has the same digest: every file and every layer has one constant time.
epoch=315532800
build() {
    podman build --format=oci --timestamp="$epoch" "$@" >&"$BUILD_LOG" 2>&1
}

commit="$(git rev-parse HEAD 2>/dev/null || echo unknown)"
[ -z "$(git status --porcelain -- . ':!docs' ':!tests' 2>/dev/null)" ] || commit+=-changed
protocol="$(sed -n 's/^PROTOCOL = //p' platform_assets/training/steps/instructions.py)"

# Adds to an image's description what only a run of it can tell.
label() {
    local image="$1" run=(podman run --rm --interactive --network=none "$name-$1:latest") versions
    versions="$("${run[@]}" python - <deploy/images/versions.py 2>&"$BUILD_LOG")"
    {
        echo "FROM $name-$image:latest"
        echo "LABEL org.opencontainers.image.revision=\"$commit\" driftline.protocol=\"$protocol\""
        echo "LABEL driftline.versions=\"$versions\""
        if [ "$image" = trainer ]; then
            # A fingerprint contains these versions: launchers read them from the image's label.
            libraries="$("${run[@]}" python -m platform_assets.training.libraries)"
            echo "LABEL driftline.libraries=\"$libraries\" driftline.torch.sha256=\"$("${run[@]}" cat /opt/venv/share/torch.sha256)\""
            echo "DRIFTLINE_TRAINER_LIBRARIES='$libraries' for Kubernetes, where no label is read" >&2
        fi
    } >"$folder/labels"
    build --pull=never --tag "$name-$image:latest" --file "$folder/labels" "$folder"
}

for image in "${images[@]}"; do
    echo "== $image" >&"$BUILD_LOG"
    build --pull=missing --network=host ${NO_CACHE:+--no-cache} "${mounts[@]}" --build-arg "BASE=$base" \
        --build-arg "TORCH_INDEX=${TORCH_INDEX:-}" --file deploy/images/Dockerfile --target "$image" \
        --tag "$name-$image:latest" .
    label "$image"
    podman image inspect "$name-$image:latest" --format "$name-$image@{{.Digest}}"
    podman image inspect "$name-$image:latest" --format '{{.Size}}' |
        awk -v image="$image" '{ printf "%s: %.0f MB\n", image, $1 / 1e6 }' >&2
done

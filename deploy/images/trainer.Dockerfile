# The trainer image: what runs inside a step, without Dagster. Built by build.sh, or by any builder from the repository's
# top folder. It writes only to /tmp, /scratch and /dev/shm, and runs under any user.
#
# BASE needs python3 (3.11 or newer) that can create virtual environments; base.sh builds one without an image registry.
ARG BASE=python:3.13-slim-trixie
FROM ${BASE}

# An index used for torch only, such as PyTorch's index of CPU builds; empty: pip's configured index.
ARG TORCH_INDEX=""

ENV PATH=/opt/venv/bin:$PATH
RUN python3 -m venv /opt/venv
COPY pyproject.toml constraints.txt /build/
RUN set -eu; \
    python -c 'import tomllib; groups = tomllib.load(open("/build/pyproject.toml", "rb"))["dependency-groups"]; print(*groups["trainer"], sep="\n")' >/build/trainer.txt; \
    pip="python -m pip --disable-pip-version-check --no-input install --quiet --no-cache-dir"; \
    if [ -n "$TORCH_INDEX" ]; then $pip --no-deps --index-url "$TORCH_INDEX" "$(grep '^torch[<>=]' /build/trainer.txt)"; fi; \
    $pip --constraint /build/constraints.txt --requirement /build/trainer.txt; \
    rm -r /build

# Compiled here, because the root is read-only at run time. A product file with a syntax error fails the build.
COPY platform_assets /app/platform_assets
RUN python -m compileall -q /app && mkdir /scratch \
    && PYTHONPATH=/app python -c 'from platform_assets import specs; specs.load_all()' \
    && echo 'driftline:x:10001:' >>/etc/group \
    && echo 'driftline:x:10001:10001::/scratch:/usr/sbin/nologin' >>/etc/passwd

# USER: torch looks up a user name, which an arbitrary user number does not have in /etc/passwd.
ENV PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/scratch USER=driftline
WORKDIR /app
USER 10001:10001
CMD ["python", "-m", "platform_assets.steps.train"]

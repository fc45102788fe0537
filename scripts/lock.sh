#!/usr/bin/env bash
# Compiles requirements.lock and requirements-uv.lock: versions and hashes, no index address and no path of this machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export UV_PYTHON_DOWNLOADS=never
compile=(.venv/bin/uv pip compile -q --upgrade --universal --python-version 3.11
    --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links)
"${compile[@]}" --all-extras pyproject.toml -o requirements.lock
"${compile[@]}" - -o requirements-uv.lock <<<uv
git --no-pager diff --stat -- requirements.lock requirements-uv.lock

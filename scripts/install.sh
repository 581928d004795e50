#!/usr/bin/env bash
# The environment of requirements.lock in .venv, with vfsearch installed in place.
# Idempotent: a second run finds everything there. Needs Python 3.11 or newer with venv.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
"$python" - <<'PY' || { echo "install: Python 3.11 or newer is needed, set PYTHON=/path/to/python3.11" >&2; exit 2; }
import sys
sys.exit(sys.version_info < (3, 11))
PY

started=$SECONDS
if [ ! -x .venv/bin/python ]; then
    echo "install: making .venv with $("$python" --version)"
    "$python" -m venv .venv || { echo "install: python3-venv is missing (Debian: apt-get install python3-venv)" >&2; exit 2; }
fi
uv=$(sed -nE 's/^(uv==[^ ]+).*/\1/p' requirements.lock)
if [ "$(.venv/bin/uv --version 2>/dev/null | cut -d' ' -f2)" != "${uv#uv==}" ]; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "$uv"
fi
echo "install: $(grep -c '^[a-z].*==' requirements.lock) locked packages (about 7 GB, most of it CUDA)"
.venv/bin/uv pip sync --quiet --require-hashes requirements.lock
.venv/bin/uv pip install --quiet --no-deps --no-build-isolation --editable .
touch .venv/.installed
echo "install: done in $((SECONDS - started)) s"

#!/usr/bin/env bash
# The Python environment of a node: requirements.lock with hashes, then the wheel of the commit.
# Lies beside both. Repeating it costs a second when nothing has changed.
#
#     node-setup.sh FOLDER
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
environment=$1
python=$environment/bin/python

if [ ! -x "$python" ]; then
    echo "node-setup: making $environment"
    "${PYTHON:-python3}" -m venv "$environment"
fi
lock=$(sha256sum <"$here/requirements.lock" | cut -d' ' -f1)
if [ "$(cat "$environment/.lock-sha256" 2>/dev/null)" != "$lock" ]; then
    uv=$(sed -nE 's/^(uv==[^ ]+).*/\1/p' "$here/requirements.lock")
    "$python" -m pip install --quiet --disable-pip-version-check "$uv"
    "$python" -m uv pip sync --quiet --require-hashes --python "$python" "$here/requirements.lock"
    echo "$lock" >"$environment/.lock-sha256"
fi
wheel=$(ls "$here"/vfsearch-*.whl)
if [ "$(cat "$environment/.wheel" 2>/dev/null)" != "$(basename "$wheel")" ]; then
    "$python" -m uv pip install --quiet --no-deps --reinstall --offline --python "$python" "$wheel"
    basename "$wheel" >"$environment/.wheel"
fi
# Login shells of `ray exec` and `ray submit`. First line: some distributions' files return early.
if [ -f ~/vfsearch/node.sh ] && ! grep -qs vfsearch/node.sh ~/.bashrc; then
    [ -s ~/.bashrc ] || echo >~/.bashrc
    sed -i '1i . ~/vfsearch/node.sh' ~/.bashrc
fi
echo "node-setup: $(basename "$wheel") in $environment"

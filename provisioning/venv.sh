#!/bin/bash
# venv.sh PYTHON: makes .venv with the project (editable) and its test tools. The stamp names all
# that the installation depends on, the checkout's path too, since scripts in .venv/bin contain it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${1:-python3}
stamp=.venv/installed
wanted="$PWD $("$python" --version) $(sha256sum pyproject.toml)"

[[ -f $stamp && $(<"$stamp") == "$wanted" ]] && exit 0

echo "installing into .venv ..."
rm -f "$stamp"
# Keep what pip has downloaded where only pyproject.toml has changed; else begin anew.
if [[ ! -x .venv/bin/python || $(.venv/bin/python -c 'import sys; print(sys.prefix)') != "$PWD/.venv" ]]; then
    "$python" -m venv --clear .venv
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
printf '%s\n' "$wanted" >"$stamp"

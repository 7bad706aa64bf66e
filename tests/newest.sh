#!/usr/bin/env bash
# The newest supported end: the newest Python here up to 3.13, and with it the newest ansible-core of the lock file.
#   tests/newest.sh                  makes the virtual environment and says what is in it
#   tests/newest.sh pytest FOLDER    runs a command there
set -euo pipefail
cd "$(dirname "$0")/.."
find_python() {
  local version candidate
  for version in 3.13 3.12; do
    for candidate in "python$version" "$HOME"/.pyenv/versions/"$version".*/bin/python3; do
      if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c 'import sys' 2>/dev/null; then
        echo "$candidate"
        return
      fi
    done
  done
  echo "Python 3.12 or 3.13 is needed for this step (the other steps run on 3.11)" >&2
  exit 1
}
venv=.venv/newest
stamp=$venv/.installed
if [ ! -e "$stamp" ] || [ requirements.txt -nt "$stamp" ]; then
  python=$(find_python)
  "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
  touch "$stamp"
fi
export PATH="$PWD/$venv/bin:$PATH"
if [ $# -gt 0 ]; then exec "$@"; fi
python -c "import sys, importlib.metadata as m; print(sys.version.split()[0], 'ansible-core', m.version('ansible-core'))"

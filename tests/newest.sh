#!/usr/bin/env bash
# The newest supported end: the newest Python here up to 3.13, and with it the newest ansible-core of the lock file.
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
python=$(find_python)
venv=.venv/newest
stamp=$venv/.installed
if [ ! -e "$stamp" ] || [ requirements.txt -nt "$stamp" ]; then
  "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
  touch "$stamp"
fi
export PATH="$PWD/$venv/bin:$PATH"
"$venv/bin/python" -c "import sys, importlib.metadata as m; print(sys.version.split()[0], 'ansible-core', m.version('ansible-core'))"
for topic in collections/ansible_collections/luxima/observability/tests/unit/*/; do
  # A folder without tests is none of ours (caches).
  compgen -G "$topic/test_*.py" >/dev/null || continue
  "$venv/bin/python" -m pytest "$topic" -m "not lab and not slow"
done
"$venv/bin/python" -m pytest tests/docs
"$venv/bin/python" -m pytest tests/render

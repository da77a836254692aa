#!/usr/bin/env bash
# Makes the virtual environment: every dependency locked by hash, Kinora itself as an editable install.
# Usage: hack/venv.sh DIRECTORY LOCKFILE
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 lock=$2 python=${PYTHON:-python3}

fail() { echo "venv: $*" >&2; exit 1; }

command -v "$python" >/dev/null || fail "$python is not there; install Python 3.11 or newer (Debian: apt-get install python3 python3-venv)"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
  || fail "$("$python" --version) is too old; Python 3.11 or newer is needed (make PYTHON=python3.12 ...)"
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null \
    || fail "the venv module of $python lacks ensurepip; install it (Debian: apt-get install python3-venv)"
  echo "installing python3-venv"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
fi

started=$SECONDS
echo "making $venv from $lock ..."
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
install=(pip install --quiet --disable-pip-version-check)
# uv, of the same lock, installs in seconds what takes pip a minute. It does not read pip's configuration: where that is
# what leads to the packages, pip goes on.
one=$(mktemp) && trap 'rm -f "$one"' EXIT
awk '/^[^ ]/ { on = /^uv==/ } on' "$lock" >"$one"
if "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$one" \
  && "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --require-hashes --no-deps -r "$lock"; then
  install=(uv pip install --quiet --python "$venv/bin/python")
else
  "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$lock"
fi
"$venv/bin/${install[0]}" "${install[@]:1}" --no-deps --no-build-isolation --editable .
echo "making $venv took $((SECONDS - started)) s"

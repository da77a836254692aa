#!/usr/bin/env bash
# `make test`: every stage with its time; stops at the first that fails, and leaves no cluster behind that it started.
set -euo pipefail
cd "$(dirname "$0")/.."

summary=()
stage() {
  local name=$1 started=$SECONDS
  shift
  printf '\n=== %s\n' "$name"
  "$@"
  summary+=("$(printf '%-14s %5d s' "$name" $((SECONDS - started)))")
}

was_up() { python3 hack/cluster status --name "$1" >/dev/null 2>&1; }

integration_was_up=no
was_up kinora-it && integration_was_up=yes
finish() {
  [ "$integration_was_up" = yes ] || make --no-print-directory integration-down || true
}
trap finish EXIT

export MAKEFLAGS=--no-print-directory
stage environment make venv
stage lint make lint verify
stage types make types
stage cluster make integration-up  # before the unit tests: those of the chart need the helm that it builds
stage unit make unit
stage contract make contract
stage integration make integration
stage e2e make e2e

printf '\n=== all passed in %d s\n' "$SECONDS"
printf '    %s\n' "${summary[@]}"

#!/usr/bin/env bash
# The S3 server that tests sign requests for: versitygw, built once from its Go module (2 min alone) and kept in the
# cache. Prints its path.
set -euo pipefail
version=v1.8.0
folder="${KINORA_CACHE:-$HOME/.cache/kinora}/bin/versitygw-$version"
if [ ! -x "$folder/versitygw" ]; then
  if ! command -v go >/dev/null; then
    echo "s3-server: Go was not found; tests against an S3 server are skipped" >&2
    exit 0
  fi
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  CGO_ENABLED=0 GOBIN="$scratch" go install -trimpath "github.com/versity/versitygw/cmd/versitygw@$version"
  mkdir -p "$folder"
  mv "$scratch/versitygw" "$folder/versitygw"
fi
echo "$folder/versitygw"

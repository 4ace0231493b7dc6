#!/usr/bin/env bash
# Measures what the unit tests alone cover of the package; fails below COVER_MIN per cent.
# The profile stays in coverage.out, for `go tool cover -html`.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset DOCKEREXEC_TEST_HOST

go test -count=1 -coverprofile=coverage.out .
total=$(go tool cover -func=coverage.out | sed -n 's/^total:.*[^0-9.]\([0-9.]*\)%$/\1/p')
echo "coverage: $total% of statements, wanted: ${COVER_MIN:=85}%"
awk -v total="$total" -v min="$COVER_MIN" 'BEGIN { exit !(total != "" && total + 0 >= min + 0) }'

#!/usr/bin/env bash
# Measures what the unit tests alone cover of the package; fails below COVER_MIN per cent,
# which the Makefile sets.
# The profile stays in coverage.out, for `go tool cover -html`.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset DOCKEREXEC_TEST_HOST
: "${COVER_MIN:?is not set: run make cover}"

go test -count=1 -coverprofile=coverage.out .
total=$(go tool cover -func=coverage.out | sed -n 's/^total:.*[^0-9.]\([0-9.]*\)%$/\1/p')
echo "coverage: $total% of statements, wanted: $COVER_MIN%"
awk -v total="$total" -v min="$COVER_MIN" 'BEGIN { exit !(total != "" && total + 0 >= min + 0) }'

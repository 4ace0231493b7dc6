#!/usr/bin/env bash
# Runs each fuzz target of the package for FUZZTIME.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

targets=$(go test -list '^Fuzz' . | grep '^Fuzz' || true)
for target in $targets; do
	echo "== $target"
	go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-2m}" -fuzzminimizetime 1s .
done

#!/usr/bin/env bash
# Runs each fuzz target of the package for FUZZTIME.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

list=$(go test -list '^Fuzz' .) || { echo "$list" && exit 1; }
mapfile -t targets < <(grep '^Fuzz' <<<"$list")
((${#targets[@]} > 0)) || { echo "there is no fuzz target" && exit 1; }
for target in "${targets[@]}"; do
	echo "== $target"
	go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-2m}" -fuzzminimizetime 1s .
done

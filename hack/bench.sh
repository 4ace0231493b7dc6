#!/usr/bin/env bash
# Runs the benchmarks and makes a table of those that have a baseline, which was
# measured in the same run. Fails if one is over its limit. The benchmark Outage draws
# docs/outage.svg.
#
#   hack/bench.sh [REGEXP]
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset DOCKEREXEC_TEST_HOST

out=$(mktemp)
trap 'rm -f "$out"' EXIT
status=0
go test -run '^$' -bench "${1:-.}" -benchmem . | tee "$out" || status=$?
OUTAGE_SVG=$PWD/docs/outage.svg go -C examples test -run '^$' -bench "${1:-.}" ./outage | tee --append "$out" || status=$?

# A line is: name, rounds, and then value and unit in turn.
awk '
	/^Benchmark/ && / ratio/ {
		name = $1
		sub(/^Benchmark/, "", name)
		sub(/-[0-9]+$/, "", name)
		gsub("/", ", ", name)
		gsub("_", " ", name)
		for (i = 3; i < NF; i += 2) {
			if ($(i + 1) ~ /-baseline$/) {
				baseline = $i
				unit = $(i + 1)
				sub(/-baseline$/, "", unit)
			} else if ($(i + 1) == "ratio") {
				ratio = $i
			}
		}
		for (i = 3; i < NF; i += 2) {
			if ($(i + 1) == unit) ours = $i
		}
		if (!lines++) {
			print "\n| benchmark | unit | dockerexec | baseline | ratio |"
			print "|---|---|---|---|---|"
		}
		printf "| %s | %s | %.4g | %.4g | %.2f |\n", name, unit, ours, baseline, ratio
	}
' "$out"
exit "$status"

#!/usr/bin/env bash
# Looks for known vulnerabilities that a call of this tree reaches. It is no part of
# lint.sh: it needs the Go vulnerability database. Arguments go to govulncheck; with
# "-db file:///FOLDER" it reads a database of yours.
#
# An advisory about github.com/docker/docker that names no package counts as reached for
# govulncheck, whatever it is about. Nearly all are about the engine, whose code is not
# linked (see "engine code" in lint.sh). So those are printed, and do not fail.
#
#   hack/vulncheck.sh [FLAG...]
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/lib.sh
source "$root/hack/lib.sh"
cd "$root"

govulncheck=golang.org/x/vuln/cmd/govulncheck@v1.9.0
for tool in go jq; do command -v "$tool" >/dev/null || die "missing: $tool"; done

found=$(mktemp)
trap 'rm -f "$found"' EXIT
for module in $(modules); do
	say "govulncheck, module $module"
	go run "$govulncheck" -C "$module" -format json "$@" ./...
done >"$found"

# Prints ID, "reached" or "whole", and summary of each advisory that a call reaches.
reached() {
	jq --raw-output --slurp '
		(map(.osv // empty) | map({key: .id, value: .}) | from_entries) as $advisories
		| map(.finding // empty | select(.trace[0].function)) | unique_by(.osv)[]
		| $advisories[.osv] as $a
		| ([$a.affected[] | select(.package.name == "github.com/docker/docker")]) as $docker
		| [.osv, (if ($docker | length) > 0 and all($docker[]; .ecosystem_specific.imports == null)
			then "whole" else "reached" end), $a.summary] | @tsv' "$found"
}

rows=$(reached)
status=0
while IFS=$'\t' read -r id how summary; do
	if [[ ! $id ]]; then
		continue
	elif [[ $how == whole ]]; then
		say "$id names no package of github.com/docker/docker, read whether it is about the engine: $summary"
	else
		say "$id is reached by a call: $summary"
		status=1
	fi
done <<<"$rows"
exit "$status"

#!/usr/bin/env bash
# Checks the statements of dockerexectest/conformance on the engine for tests and on all
# private engines, and prints a table of which holds where. "-" is a statement that says
# nothing of that engine. Fails if a statement does not hold, or was not checked.
#
#   hack/conformance.sh
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/lib.sh
source "$root/hack/lib.sh"
cd "$root"

need_go
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
go test -c -o "$dir/fake" ./dockerexectest
go test -c -o "$dir/engine" ./test/engine

# checked NAME COMMAND...: the command's output goes to NAME, and to the terminal if it fails.
failed=''
checked() {
	local output=$dir/$1.out
	shift
	"$@" >"$output" 2>&1 || {
		failed=yes
		grep -v -e '^=== ' -e '--- PASS' -e '--- SKIP' -e 'says nothing' "$output" >&2 || true
	}
}
export DOCKEREXEC_TEST_REQUIRED=1
say "the engine for tests"
checked fake env -C dockerexectest "$dir/fake" -test.v -test.run '^TestConformance$'
for engine in default latest podman; do
	say "the engine $engine"
	checked "$engine" hack/with-engine.sh --engine "$engine" env -C test/engine "$dir/engine" -test.v -test.run '^TestEngineConformance$'
done

awk '
	/^ *=== RUN +TestConformance\/Docker_29\// { sub(/^.*Docker_29\//, ""); order[++rows] = $0 }
	/^ *--- (PASS|FAIL|SKIP): Test(Engine)?Conformance\// {
		split($3, part, "/")
		column = FILENAME
		gsub(/^.*\/|\.out$/, "", column)
		name = part[2]
		if (column == "fake") { column = part[2]; name = part[3] }
		if (name != "") cell[column, name] = $2
	}
	END {
		split("Docker_20.10 Docker_29 Podman_4 default latest podman", columns, " ")
		split("20.10 29 Podman 20.10 newest Podman", heads, " ")
		show["PASS:"] = "yes"; show["SKIP:"] = "-"; show["FAIL:"] = "NO"; show[""] = "?"
		printf "%-8s %-8s %-8s| %-8s %-8s %-8s| %s\n", "fake", "fake", "fake", "engine", "engine", "engine", ""
		for (i = 1; i <= 6; i++) printf "%-8s%s", heads[i], i % 3 ? " " : "| "
		print "statement"
		for (r = 1; r <= rows; r++) {
			for (i = 1; i <= 6; i++) {
				value = cell[columns[i], order[r]]
				if (value == "PASS:") holds[i]++
				if (value != "PASS:" && value != "SKIP:") wrong++
				printf "%-8s%s", show[value], i % 3 ? " " : "| "
			}
			gsub(/_/, " ", order[r])
			print order[r]
		}
		for (i = 1; i <= 6; i++) printf "%-8d%s", holds[i], i % 3 ? " " : "| "
		printf "hold, of %d statements\n", rows
		exit wrong > 0 || rows == 0
	}' "$dir"/{fake,default,latest,podman}.out || failed=yes
[[ ! $failed ]] || die "a statement does not hold"

#!/usr/bin/env bash
# All checks of a commit, on a machine that has Go: run as root, it installs the rest.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/lib.sh
source "$root/hack/lib.sh"
cd "$root"
export CI=true

heading() { printf '\n######## %s (after %d s)\n\n' "$*" "$SECONDS"; }

heading "tools"
need_go
go version
need make gcc shellcheck
need_files libc6-dev /usr/include/stdlib.h

# failures FILE: prints the beginning of what each failed test of this output has said, or the end of it all.
failures() {
	local text
	text=$(awk '
		/^[^ \t]/ { lines = 0 } # all that a test says is indented
		/^ *--- / { lines = /--- FAIL/ ? 40 : 0 }
		/^(panic: |fatal error: |WARNING: DATA RACE)/ { traced = 30 }
		lines-- > 0 || traced-- > 0 { print substr($0, 1, 300) }' "$1")
	head -n 300 <<<"${text:-$(tail -n 30 "$1")}"
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=() said=''
# The newest engine first: the test of an upgrade needs it built.
for target in lint cover test-latest test-podman test; do
	heading "make $target"
	make "$target" 2>&1 | tee "$log" || {
		failed+=("make $target")
		said+=$(printf '\n-------- make %s\n' "$target" && failures "$log")
	}
done

if ((${#failed[@]} > 0)); then
	heading "what failed, once more"
	echo "$said"
	heading "failed: ${failed[*]}"
	exit 1
fi
heading "all passed"

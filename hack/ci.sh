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

failed=()
# The newest engine first: the test of an upgrade needs it built.
for target in lint cover test-latest test-podman test; do
	heading "make $target"
	make "$target" || failed+=("make $target")
done

if ((${#failed[@]} > 0)); then
	heading "failed: ${failed[*]}"
	exit 1
fi
heading "all passed"

#!/usr/bin/env bash
# Has a swarm node live through random scaling, updates and ends of containers,
# engine and node for SOAK_TIME, on a private engine: ENGINE is default or latest.
# SOAK_SEED repeats the choices of an earlier run.
#
#   hack/soak.sh          brings up engine, registry and image
#   hack/soak.sh --here   what with-engine.sh runs
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ ${1-} != --here ]]; then
	# shellcheck source=hack/lib.sh
	source "$root/hack/lib.sh"
	need_go
	need gcc
	need_files libc6-dev /usr/include/stdlib.h
	# Downloads and compiles all that is needed: where it runs there is no network.
	go -C "$root/examples" list -test -deps -export -race ./swarmnode >/dev/null
	exec "$root/hack/with-engine.sh" --engine "${ENGINE:-default}" "$root/hack/soak.sh" --here
fi

export GOPROXY=off GOTOOLCHAIN=local DOCKEREXEC_TEST_REQUIRED=1
export SWARMNODE_TEST_SOAK=${SOAK_TIME:-10m} SWARMNODE_TEST_SEED=${SOAK_SEED:-}
exec go -C "$root/examples" test -race -count=1 -timeout 0 -run '^TestSoak$' -v ./swarmnode

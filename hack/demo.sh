#!/usr/bin/env bash
# The demo: a swarm of one node on a private engine. A service is pulled with
# credentials, logged, healed, scaled, updated and removed; examples/swarmdemo
# drives it and checks each step. Nothing is left behind.
#
#   hack/demo.sh          brings up engine, registry and image; ENGINE is default, latest or podman
#   hack/demo.sh --here   what with-engine.sh runs
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/lib.sh
source "$root/hack/lib.sh"
if [[ ${1-} != --here ]]; then
	need_go
	# Downloads and compiles all that is needed: where it runs there is no network.
	go -C "$root/examples" build -o /dev/null ./swarmnode
	go -C "$root/examples" build -o /dev/null ./swarmdemo
	exec "$root/hack/with-engine.sh" --engine "${ENGINE:-default}" "$root/hack/demo.sh" --here
fi

: "${DOCKEREXEC_TEST_IMAGE:?is not set: run me without --here}"
dir=$(mktemp -d "$DOCKEREXEC_TEST_DIR/demo.XXXXXX")
export DOCKER_HOST=$DOCKEREXEC_TEST_HOST
GOPROXY=off GOTOOLCHAIN=local go -C "$root/examples" build -o "$dir/" ./swarmnode ./swarmdemo
cd "$dir"

before=$(things)
status=0
./swarmdemo -node ./swarmnode 2>&1 | tee out || status=$?
((status == 0)) || fail "swarmdemo exits with $status; the end of the node's log: $(tail -n 20 node.log)"

now=$(things)
[[ $now == "$before" ]] || fail "something is left: $(diff <(echo "$before") <(echo "$now") | grep '^[<>]')"
if grep -qF -e "$DOCKEREXEC_TEST_PASSWORD" out node.log; then fail 'the output holds the password'; fi
printf '  ok: no password in the output, and nothing is left; the engine has: %s\n\n== demo passed\n' \
	"$(paste -sd, <<<"$now" | sed 's/,/, /g')"

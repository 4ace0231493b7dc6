#!/usr/bin/env bash
# Measures a swarm node beside the reference's calls and beside the engine's own limit, on a
# private engine, and writes the table of docs/benchmarks.md and docs/node.svg. Fails if a
# limit is not held. ENGINE is default or latest. ROUNDS (5) is how often each thing is
# measured; 0: not at all. KILLS is how often the engine is killed within starts, with each
# of the two executors in turn; 0, the default: not at all.
#
#   hack/bench-node.sh          brings up engine, registry and image
#   hack/bench-node.sh --here   what with-engine.sh runs
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ ${1-} != --here ]]; then
	# shellcheck source=hack/lib.sh
	source "$root/hack/lib.sh"
	need_go
	# Downloads and compiles all that is needed: where it runs there is no network.
	go -C "$root/examples" list -test -deps -export ./swarmnode >/dev/null
	exec "$root/hack/with-engine.sh" --engine "${ENGINE:-default}" "$root/hack/bench-node.sh" --here
fi

export GOPROXY=off GOTOOLCHAIN=local DOCKEREXEC_TEST_REQUIRED=1
tests=()
if ((${ROUNDS:-5} > 0)); then
	tests+=('^TestBenchNode$')
	export SWARMNODE_TEST_BENCH_ROUNDS=${ROUNDS:-5}
	export SWARMNODE_TEST_BENCH_PAGE=$root/docs/benchmarks.md SWARMNODE_TEST_BENCH_SVG=$root/docs/node.svg
fi
if ((${KILLS:-0} > 0)); then
	tests+=('^TestBenchNodeKills$')
	export SWARMNODE_TEST_BENCH_KILLS=$KILLS SWARMNODE_TEST_BENCH_PAGE=$root/docs/benchmarks.md
fi
((${#tests[@]} > 0)) || die "ROUNDS and KILLS are both 0: there is nothing to measure"
exec go -C "$root/examples" test -count=1 -timeout 0 -run "$(IFS='|' && echo "${tests[*]}")" -v ./swarmnode

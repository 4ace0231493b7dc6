#!/usr/bin/env bash
# Vets and tests every module of the tree.
#
#   hack/test.sh --no-engine [GO-TEST-FLAG...]               what needs an engine is skipped
#   hack/test.sh --engine default|latest [GO-TEST-FLAG...]   on a private engine; nothing is skipped
#   hack/test.sh --engine podman [GO-TEST-FLAG...]           on a private Podman, but for podman-cannot.txt
#   hack/test.sh --here [GO-TEST-FLAG...]                    what with-engine.sh runs
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/lib.sh
source "$root/hack/lib.sh"
cd "$root"

race=(-race)
packages=() # how many at a time; empty: as many as there are cores
go_test() {
	local module status=0
	for module in $(modules); do
		say "go test, module $module"
		go -C "$module" test "${race[@]}" "${packages[@]}" -shuffle=on -count=1 -timeout 30m "$@" ./... || status=$?
	done
	return "$status"
}

# What is not run on Podman: tests of whole nodes that need two Docker engines or health
# checks, measure for minutes, or repeat what others show. The time is for the engine tests.
beside_podman=(
	TestEngineNodeOutlivesOtherAPIVersions TestEngineNodeOutlivesAnUpgrade TestEngineNodeOutlivesTheContainers
	TestEngineNodeLogs TestEngineNodeLogsWithoutLimit TestEngineNodeStaysFlat TestEngineNodeTakesOver
	TestEngineNodeHasClusterVolumes TestEngineKilledNodeLeavesNothingBehind TestEngineNodeRemovedWhileAway
	TestEngineNodeBehindAProxyThatForbidsRequests TestEngineNodeTellsWhatHappens
)

# skip_on_podman: says what is not tested on Podman, and sets skip. Fails if a name is that of no test.
skip_on_podman() {
	local name why module names=() known=()
	for module in $(modules); do
		mapfile -t -O "${#known[@]}" known < <(go -C "$module" test "${race[@]}" -list '^TestEngine' ./... | grep '^TestEngine')
	done
	while read -r name why; do
		[[ $name != '#' ]] || continue
		[[ " ${known[*]} " == *" $name "* ]] || die "podman-cannot.txt: there is no test $name"
		say "not on Podman: $name: $why"
		names+=("^$name\$")
	done <hack/podman-cannot.txt
	((${#names[@]} <= 20)) || die "podman-cannot.txt: more than 20 names"
	for name in "${beside_podman[@]}"; do
		[[ " ${known[*]} " == *" $name "* ]] || die "test.sh: there is no test $name"
		names+=("^$name\$")
	done
	say "not run on Podman, whole nodes: ${beside_podman[*]}"
	skip=(-skip "$(IFS='|' && echo "${names[*]}")")
}

case ${1-} in
--no-engine)
	shift
	if ! "$(go env CC)" --version >/dev/null 2>&1; then
		say "no C compiler, so the race detector is off"
		race=()
	fi
	vet
	unset DOCKEREXEC_TEST_HOST
	go_test "$@"
	;;
--engine)
	engine=$2
	shift 2
	need_go
	need gcc
	need_files libc6-dev /usr/include/stdlib.h
	vet
	# Downloads and compiles all that the tests need: where they run there is no network.
	for module in $(modules); do
		go -C "$module" list -test -deps -export "${race[@]}" ./... >/dev/null
	done
	exec hack/with-engine.sh --engine "$engine" hack/test.sh --here "$@"
	;;
--here)
	shift
	export GOPROXY=off GOTOOLCHAIN=local DOCKEREXEC_TEST_REQUIRED=1
	packages=(-p 1) # tests stop the engine, and measure time
	skip=()
	[[ ! ${DOCKEREXEC_TEST_PODMAN:-} ]] || skip_on_podman
	go_test "${skip[@]}" "$@"
	;;
*) die "usage: test.sh --no-engine | --engine default|latest|podman [GO-TEST-FLAG...]" ;;
esac

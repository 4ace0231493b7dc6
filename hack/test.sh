#!/usr/bin/env bash
# Vets and tests every module of the tree.
#
#   hack/test.sh --no-engine [GO-TEST-FLAG...]               what needs an engine is skipped
#   hack/test.sh --engine default|latest [GO-TEST-FLAG...]   on private engines; nothing is skipped
#   hack/test.sh --engine podman [GO-TEST-FLAG...]           on private Podmans, but for podman-cannot.txt
#   hack/test.sh --here 'MODULE...' [GO-TEST-FLAG...]        what with-engine.sh runs: these modules' engine tests
#   hack/test.sh --units [GO-TEST-FLAG...]                   all other tests
#
# With an engine no GO-TEST-FLAG may be -skip: the lanes have theirs.
#
# With an engine, lanes run side by side. Two have an engine each, and mostly wait: one for most tests
# of the package that have an engine for themselves, one for all other engine tests. With the default
# engine a third one runs, at the lowest priority, all other tests, which compute.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/lib.sh
source "$root/hack/lib.sh"
cd "$root"

race=(-race) skip=() cannot=()
# go_test MODULE FLAG|PACKAGE... runs tests that were vetted before.
go_test() {
	local module=$1
	shift
	go -C "$module" test "${race[@]}" -vet=off -shuffle=on -count=1 -timeout 30m "$@"
}

# packages MODULE engine|units: sets folders, to those whose tests look for a running engine, or to all others.
packages() {
	local all dir kind
	folders=()
	all=$(go -C "$1" list -f '{{.Dir}}' ./...)
	while read -r dir; do
		kind=units
		if grep -qs DOCKEREXEC_TEST_HOST "$dir"/*_test.go; then kind=engine; fi
		[[ $kind != "$2" ]] || folders+=("$dir")
	done <<<"$all"
	((${#folders[@]} > 0)) || die "module $1 has no package for: $2" # go test would take the module's own folder
}

# A test that has the engine for itself, and takes a minute: it evens out the lanes.
moved=TestEngineConformance

# engine_tests alone|shared: prints the names of the package's engine tests that have the engine
# for themselves but for the one that is moved, or all others. See test/engine/harness_test.go.
engine_tests() {
	local folder files=()
	packages . engine
	for folder in "${folders[@]}"; do files+=("$folder"/*_test.go); done
	awk -v "want=$1" -v "moved=$moved" '
		function done() { if (name && kind == want) print name; name = "" }
		/^func TestEngine/ { name = $2; sub(/\(.*/, "", name); kind = "alone" }
		/^\t(share := )?(sharesEngine|beginsAlone)\(t\)/ || name == moved { kind = "shared" }
		/^}/ { done() }' "${files[@]}"
}

# skipping NAME...: sets skip, to the flag that leaves these tests out.
skipping() { skip=(-skip "^($(IFS='|' && echo "$*"))\$"); }

lanes=() processes=()
# lane NAME COMMAND...: runs it beside this script, and ends it with this script.
lane() {
	lanes+=("$1")
	setpriv --pdeathsig TERM env --default-signal=INT,QUIT "${@:2}" </dev/null &
	processes+=($!)
}

failed=()
# await_lanes waits for all, and adds those that fail to failed.
await_lanes() {
	local i
	for i in "${!lanes[@]}"; do
		wait "${processes[i]}" || failed+=("${lanes[i]}")
	done
	lanes=() processes=()
}

# What is not run on Podman: tests of whole nodes that need two Docker engines or health
# checks, measure for minutes, or repeat what others show. The time is for the engine tests.
beside_podman=(
	TestEngineNodeOutlivesOtherAPIVersions TestEngineNodeOutlivesAnUpgrade TestEngineNodeOutlivesTheContainers
	TestEngineNodeLogs TestEngineNodeLogsWithoutLimit TestEngineNodeStaysFlat TestEngineNodeTakesOver
	TestEngineNodeHasClusterVolumes TestEngineKilledNodeLeavesNothingBehind TestEngineNodeRemovedWhileAway
	TestEngineNodeBehindAProxyThatForbidsRequests TestEngineNodeTellsWhatHappens TestEngineNodeTellsThatItsEngineIsAway
)

# skip_on_podman: says what is not tested on Podman, and adds it to cannot. Fails if a name is that of no test.
skip_on_podman() {
	local name why module known=()
	for module in $(modules); do
		mapfile -t -O "${#known[@]}" known < <(go -C "$module" test "${race[@]}" -list '^TestEngine' ./... | grep '^TestEngine')
	done
	while read -r name why; do
		[[ $name != '#' ]] || continue
		[[ " ${known[*]} " == *" $name "* ]] || die "podman-cannot.txt: there is no test $name"
		say "not on Podman: $name: $why"
		cannot+=("$name")
	done <hack/podman-cannot.txt
	((${#cannot[@]} <= 20)) || die "podman-cannot.txt: more than 20 names"
	for name in "${beside_podman[@]}"; do
		[[ " ${known[*]} " == *" $name "* ]] || die "test.sh: there is no test $name"
	done
	cannot+=("${beside_podman[@]}")
	say "not run on Podman, whole nodes: ${beside_podman[*]}"
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
	status=0
	for module in $(modules); do
		say "go test, module $module"
		go_test "$module" "$@" ./... || status=$?
	done
	exit "$status"
	;;
--engine)
	engine=$2
	shift 2
	[[ " $*" != *" -skip"* ]] || die "-skip is the lanes' own: use -run"
	need_go
	need gcc
	need_files libc6-dev /usr/include/stdlib.h
	vet
	# Downloads and compiles all that the tests need: where they run there is no network.
	for module in $(modules); do
		go -C "$module" list -test -deps -export "${race[@]}" ./... >/dev/null
	done
	[[ $engine != podman ]] || skip_on_podman
	mapfile -t alone < <(engine_tests alone)
	mapfile -t shared < <(engine_tests shared)
	((${#alone[@]} > 0 && ${#shared[@]} > 0)) || die "no engine tests are found"
	skipping "${shared[@]}" "${cannot[@]}"
	lane "the tests of the package that have the engine alone" hack/with-engine.sh --engine "$engine" hack/test.sh --here . "${skip[@]}" "$@"
	[[ ! ${DOCKEREXEC_TEST_HOST:-} ]] || await_lanes # a given engine is one for all
	skipping "${alone[@]}" "${cannot[@]}"
	lane "all other engine tests" hack/with-engine.sh --engine "$engine" hack/test.sh --here '. examples' "${skip[@]}" "$@"
	[[ ! ${DOCKEREXEC_TEST_HOST:-} ]] || await_lanes
	# timeout ends go, and the tests that go runs, when it is ended.
	[[ $engine != default ]] || lane "the tests without an engine" nice -n 19 timeout 1h hack/test.sh --units "$@"
	await_lanes
	((${#failed[@]} == 0)) || die "failed: $(printf '%s; ' "${failed[@]}")"
	;;
--here)
	read -ra here <<<"$2"
	shift 2
	export GOPROXY=off GOTOOLCHAIN=local DOCKEREXEC_TEST_REQUIRED=1
	status=0
	for module in "${here[@]}"; do
		packages "$module" engine
		# One package at a time: its tests stop the engine, and measure time.
		go_test "$module" -p 1 "$@" "${folders[@]}" || status=$?
	done
	exit "$status"
	;;
--units)
	shift
	unset DOCKEREXEC_TEST_HOST
	status=0
	for module in $(modules); do
		packages "$module" units
		go_test "$module" "$@" "${folders[@]}" || status=$?
	done
	exit "$status"
	;;
*) die "usage: test.sh --no-engine | --engine default|latest|podman [GO-TEST-FLAG...]" ;;
esac

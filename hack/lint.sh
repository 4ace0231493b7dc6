#!/usr/bin/env bash
# Every static check. Runs them all, then fails if one did.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/lib.sh
source "$root/hack/lib.sh"
cd "$root"

golangci_lint=github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

failed=()
# check NAME COMMAND...: the command prints what is wrong and fails.
check() {
	local name=$1
	shift
	say "$name"
	"$@" || failed+=("$name")
}

formatted() {
	local list
	list=$(gofmt -l -s .) || return
	[[ ! $list ]] || { echo "gofmt -s changes these: $list" && return 1; }
}

golangci() {
	local module status=0
	for module in $(modules); do
		(cd "$module" && go run "$golangci_lint" run --config "$root/.golangci.yml" ./...) || status=1
	done
	go run "$golangci_lint" run ./testdata/image || status=1
	return "$status"
}

tidy() {
	local module status=0
	for module in $(modules); do
		go -C "$module" mod tidy -diff || status=1
	done
	return "$status"
}

# The client's module has no go.mod of its own, so a plain tidy can raise the line.
go_line() {
	local module lines status=0
	for module in $(modules); do
		lines=$(grep -E '^(go|toolchain) ' "$module/go.mod")
		[[ $lines == 'go 1.25.0' ]] || { echo "$module/go.mod: want go 1.25.0 and no toolchain, have: $lines" && status=1; }
	done
	return "$status"
}

# The package, and the engine for tests, which knows nothing of it. Folders that hold
# tests alone are no packages to import.
packages() {
	local packages
	packages=$(go list -f '{{if .GoFiles}}{{.ImportPath}}{{end}}' ./... | paste -sd ' ') || return
	[[ $packages == 'github.com/dockerexec/dockerexec github.com/dockerexec/dockerexec/dockerexectest github.com/dockerexec/dockerexec/dockerexectest/conformance' ]] ||
		{ echo "want the package, dockerexectest and conformance, have: $packages" && return 1; }
	packages=$(go list -deps .) || return
	! grep -E '^go.opentelemetry.io/otel/(sdk|exporters)|prometheus' <<<"$packages" ||
		{ echo 'an importer of the package builds the packages above: the API of OpenTelemetry is enough' && return 1; }
	packages=$(go list -deps ./dockerexectest) || return
	! grep -x github.com/dockerexec/dockerexec <<<"$packages" || { echo 'dockerexectest stands on the package' && return 1; }
}

# Scanners name every advisory about the engine, which is in the client's module too.
# That its code is not linked is the answer: see .github/SECURITY.md.
engine_code() {
	local module list status=0
	for module in $(modules); do
		list=$(go -C "$module" list -deps ./... | grep '^github\.com/docker/docker/') || return
		! grep -vE '^github\.com/docker/docker/(api|client)(/|$)' <<<"$list" || { echo "module $module links these of the engine" && status=1; }
	done
	return "$status"
}

platforms() {
	local os arch status=0
	for os in linux darwin windows; do
		for arch in amd64 arm64; do
			CGO_ENABLED=0 GOOS=$os GOARCH=$arch go build ./... || { echo "does not build for $os/$arch" && status=1; }
		done
	done
	return "$status"
}

# The package's tests too, and on 32 bits. Those of a whole node are for a Unix.
vet_platforms() {
	local platform status=0
	for platform in linux/386 darwin/arm64 windows/amd64; do
		CGO_ENABLED=0 GOOS=${platform%/*} GOARCH=${platform#*/} go vet ./... || { echo "go vet finds this on $platform" && status=1; }
	done
	return "$status"
}

scripts() {
	if ! command -v shellcheck >/dev/null; then
		[[ -z ${CI:-} ]] || { echo "shellcheck is missing" && return 1; }
		say "shellcheck is missing: scripts are not checked"
		return
	fi
	shellcheck --external-sources hack/*.sh .ci/run
}

check gofmt formatted
check "go vet" vet
check golangci-lint golangci
check "go mod tidy" tidy
check "go line" go_line
check "go list" packages
check "engine code" engine_code
check "builds for other platforms" platforms
check "go vet for other platforms" vet_platforms
check "the README, as an importer" hack/importer.sh
check shellcheck scripts
((${#failed[@]} == 0)) || die "failed: $(printf '%s; ' "${failed[@]}")"

#!/usr/bin/env bash
# What must hold before a version is tagged, beside `make lint` and the tests.
#
#   hack/release-check.sh vX.Y.Z
#
# It prints how the API differs from that of the last tag, and the licence of
# every module that an importer gets on any of the platforms.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/lib.sh
source "$root/hack/lib.sh"
cd "$root"

version=${1-}
[[ $version =~ ^v([0-9]+)\.([0-9]+)\.([0-9]+)$ ]] || die "usage: release-check.sh vX.Y.Z"
patch=${BASH_REMATCH[3]}
apidiff=golang.org/x/exp/cmd/apidiff@v0.0.0-20261014143641-f0251eb4aa3e

failed=()
fail() {
	say "$*"
	failed+=("$*")
}

say "the tree"
[[ -z $(git status --porcelain) ]] || fail "there are uncommitted changes"
git rev-parse --quiet --verify "refs/tags/$version" >/dev/null && fail "$version is tagged already"
grep -q "^## \[${version#v}\] - [0-9]\{4\}-[0-9][0-9]-[0-9][0-9]$" CHANGELOG.md || fail "CHANGELOG.md has no dated section for ${version#v}"
grep -q "^\[${version#v}\]: " CHANGELOG.md || fail "CHANGELOG.md has no link for ${version#v}"
if grep -qi "until .* first tag" README.md; then fail "README.md still says what to do until the first tag"; fi

say "the modules"
for module in $(modules); do
	go -C "$module" mod tidy -diff || fail "$module/go.mod is not tidy"
	go -C "$module" mod verify || fail "$module: a module differs from go.sum"
done

say "the API, since the last tag"
if last=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null); then
	old=$(mktemp -d)
	trap 'git worktree remove --force "$old/tree"; rm -rf "$old"' EXIT
	git worktree add --quiet --detach "$old/tree" "$last"
	package=$(go list .)
	(cd "$old/tree" && go run "$apidiff" -w "$old/api" "$package")
	differences=$(go run "$apidiff" "$old/api" "$package")
	echo "${differences:-none since $last}"
	if [[ $patch != 0 && $differences ]]; then fail "the API differs, so $version must be a minor version"; fi
else
	echo "no tag so far"
fi

say "the licences"
# licence DIR: the short name of the licence in there.
licence() {
	local file
	for file in "$1"/LICENSE* "$1"/LICENCE* "$1"/COPYING*; do
		[[ -f $file ]] || continue
		case $(tr -s '[:space:]' ' ' <"$file") in
		*"Apache License"*) echo Apache-2.0 ;;
		*"Permission is hereby granted, free of charge"*) echo MIT ;;
		*"Permission to use, copy, modify, and/or distribute"*) echo ISC ;;
		*"Redistribution and use in source and binary forms"*) echo BSD ;;
		*"Mozilla Public License"*) echo MPL-2.0 ;;
		*) continue ;;
		esac
		return
	done
	echo unknown
}
dependencies=$(for os in linux darwin windows; do
	GOOS=$os CGO_ENABLED=0 go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' .
done)
while read -r path module_version dir; do
	name=$(licence "$dir")
	printf '%-12s %s %s\n' "$name" "$path" "$module_version"
	[[ $name != unknown ]] || fail "the licence of $path is not known"
done < <(sort -u <<<"$dependencies")

((${#failed[@]} == 0)) || die "not ready for $version: $(printf '%s; ' "${failed[@]}")"
say "ready for $version"

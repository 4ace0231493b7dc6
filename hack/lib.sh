# shellcheck shell=bash
# What the scripts of this folder share. Source it: it only defines functions and widens PATH.

say() { echo "hack: $*" >&2; }

die() {
	say "$*"
	exit 1
}

# Daemons live in sbin, which a plain user's PATH may lack.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# run COMMAND...: runs it and returns its status; child has its process id meanwhile.
# Traps run at once, not after the command. It does not wait with traps set,
# because bash can then lose a child's end and wait for ever (seen with 5.2):
# a shell without traps waits and reports through a pipe. That one ends with
# this one, whatever ends it.
child='' running=''
run() {
	local in out report status
	running=yes
	exec {in}<&0 {out}>&1
	# shellcheck disable=SC2016 # variables of the inner shell
	exec {report}< <(exec setpriv --pdeathsig KILL bash -c '
		trap "" HUP INT TERM
		in=$1 out=$2 status=0
		shift 2
		# Undo what bash does to a command in the background: no stdin, no SIGINT.
		env --default-signal=HUP,INT,QUIT,TERM "$@" <&"$in" >&"$out" {in}<&- {out}>&- &
		exec {in}<&- {out}>&-
		echo $!
		wait $! 2>/dev/null || status=$?
		echo $status' run "$in" "$out" "$@")
	exec {in}<&- {out}>&-
	read -r child <&"$report"
	read -r status <&"$report"
	exec {report}<&-
	# shellcheck disable=SC2034 # both are for the caller's traps
	child='' running=''
	return "$status"
}

# thaw GROUP...: lets all run on that is frozen in groups below these, such as a paused container.
# With control groups of version 1, SIGKILL does not end what is frozen, nor a namespace that has it.
thaw() {
	local state
	# No such group is fine: with version 2 there is none, nor before the first container.
	{ find "$@" -mindepth 2 -name freezer.state | while read -r state; do
		echo THAWED >"$state"
	done; } 2>/dev/null || true
}

# modules: prints the folders of the tree's modules. Run it at the root.
modules() {
	echo .
	[[ ! -e examples/go.mod ]] || echo examples
}

# vet: go vet, of the test image's program too, which ./... leaves out.
vet() {
	local module
	go vet ./testdata/image
	for module in $(modules); do
		go -C "$module" vet ./...
	done
}

# package_of COMMAND: the Debian package that has it.
package_of() {
	case $1 in
	dockerd) echo docker.io ;;
	docker) # docker.io has the client too, until Debian 12
		if apt-cache show docker-cli >/dev/null 2>&1; then echo docker-cli; else echo docker.io; fi ;;
	ip) echo iproute2 ;;
	unshare | setpriv | flock | mount | nsenter) echo util-linux ;;
	*) echo "$1" ;;
	esac
}

# need_go: Debian's own may be too old, so Go is not installed.
need_go() {
	command -v go >/dev/null || die "missing: go, 1.25 or later"
}

# need COMMAND...: installs what is not on PATH, or ends with one line that says what is missing.
need() {
	local cmd missing=()
	for cmd; do
		command -v "$cmd" >/dev/null || missing+=("$cmd")
	done
	((${#missing[@]} == 0)) && return
	can_install "${missing[@]}"
	local packages=()
	for cmd in "${missing[@]}"; do
		packages+=("$(package_of "$cmd")")
	done
	install_packages "${packages[@]}"
	exec {installing}>&-
}

# need_files PACKAGE FILE [PACKAGE FILE]...: the same for packages that bring no command.
need_files() {
	local packages=()
	while (($# > 1)); do
		[[ -e $2 ]] || packages+=("$1")
		shift 2
	done
	((${#packages[@]} == 0)) && return
	can_install "${packages[@]}"
	install_packages "${packages[@]}"
	exec {installing}>&-
}

# need_engine KIND: what a private engine of that kind needs, and its registry.
need_engine() {
	need iptables runc docker docker-registry
	if [[ $1 == podman ]]; then
		need podman catatonit
		need_files netavark /usr/lib/podman/netavark aardvark-dns /usr/lib/podman/aardvark-dns
	else
		need dockerd containerd
	fi
}

# can_install WANTED...: readies apt, or ends the script if this user or machine cannot install. One
# script at a time gets further, until it closes the descriptor installing.
can_install() {
	if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
		die "missing: $* (root and apt are needed to install that; 'make test-unit' needs no engine)"
	fi
	exec {installing}>/run/lock/dockerexec-install
	flock "$installing"
	apt-get update -qq >/dev/null 2>&1 || say "apt-get update failed, the package lists may be old"
}

readonly policy=/usr/sbin/policy-rc.d policy_mark='# made by dockerexec while it installs packages'

# install_packages PACKAGE...: says what it installs first. No service is started, now or at the next boot.
install_packages() (
	export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
	local new log
	mapfile -t new < <(apt-get install --simulate --no-install-recommends "$@" | sed -n 's/^Inst \([^ ]*\) .*/\1/p')
	if ((${#new[@]} == 0)) && dpkg --status "$@" >/dev/null 2>&1; then return; fi # another script has
	say "installing with apt: ${new[*]:-$*}"

	log=$(mktemp)
	trap 'rm -f "$log"' EXIT
	trap 'exit 1' INT TERM
	# A policy that someone else made stays as it is.
	if [[ ! -e $policy ]] || grep -qs "^$policy_mark" "$policy"; then
		trap 'rm -f "$log" "$policy"' EXIT
		printf '#!/bin/sh\n%s\nexit 101\n' "$policy_mark" >"$policy"
		chmod 755 "$policy"
	fi
	if ! apt-get install --yes --no-install-recommends "$@" </dev/null >"$log" 2>&1; then
		tail -n 20 "$log" >&2
		die "apt cannot install: $* ('make test-unit' needs no engine)"
	fi

	if command -v systemctl >/dev/null; then
		dpkg -L "${new[@]}" | sed -n 's|.*/systemd/system/\([^/@]*\.\(service\|socket\)\)$|\1|p' |
			xargs --no-run-if-empty -n 1 systemctl disable --quiet 2>/dev/null || true
	fi
)

# fail WHY: ends a demo.
fail() {
	printf '\ndemo FAILED: %s\n' "$*" >&2
	exit 1
}

# things: all containers, volumes and networks of the engine at DOCKER_HOST.
things() {
	docker ps --all --format 'container {{.Names}}'
	docker volume ls --format 'volume {{.Name}}'
	docker network ls --format 'network {{.Name}}' | sort
}

#!/usr/bin/env bash
# The inner half of with-engine.sh: brings engine, registry and image up, runs
# the command and exits with its status.
#
#   session.sh DIR private|given|bare COMMAND [ARG...]
#
# With a private engine it is the first process of new namespaces: when it
# ends, the kernel ends all else in there and drops mounts, interfaces and rules.
# A folder that an earlier one has left, as a host's disk does, is taken as it is.
# Bare brings up neither engine nor registry.
set -euo pipefail

dir=$1 mode=$2
shift 2
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/lib.sh
source "$root/hack/lib.sh"

# Ctrl-C reaches the whole process group, kill only the outer half, which then
# asks for what the command has not got yet.
seen=''
trap 'seen=1' HUP INT TERM
trap 'pass_on INT 130' USR1
trap 'pass_on TERM 143' USR2
# shellcheck disable=SC2317 # the traps call it
pass_on() { # NAME STATUS
	[[ $child ]] || exit "$2"
	[[ $seen ]] || kill -"$1" "$child" 2>/dev/null || true
	seen=1
}

# Nothing may stay frozen, or these namespaces would not end. Podman sees its own group as the root.
# shellcheck disable=SC2317 # the trap calls it
finish() {
	if [[ $DOCKEREXEC_TEST_PODMAN ]]; then
		thaw /sys/fs/cgroup/freezer
	else
		thaw "/sys/fs/cgroup/freezer/$DOCKEREXEC_TEST_GROUP"
	fi
}
if [[ $mode == private ]]; then trap finish EXIT; fi

# prepare_podman writes Podman's configuration and hides what it shares with another one on the machine.
prepare_podman() {
	mount -t tmpfs -o mode=1777 tmpfs /dev/shm # its locks
	mkdir -p /run/lib/upper /run/lib/work # for its list of layers, whose place is fixed
	mount -t overlay -o lowerdir=/var/lib,upperdir=/run/lib/upper,workdir=/run/lib/work overlay /var/lib
	local group
	for group in /sys/fs/cgroup/ /sys/fs/cgroup/*/; do # see own-cgroup.sh
		[[ ! -d $group$DOCKEREXEC_TEST_GROUP ]] || mount --bind "$group$DOCKEREXEC_TEST_GROUP" "$group"
	done

	rm -rf /etc/containers/*.conf /etc/containers/*.d /etc/containers/networks # an overlay: not the machine's own
	echo '{"default": [{"type": "insecureAcceptAnything"}]}' >/etc/containers/policy.json
	cat >/etc/containers/registries.conf <<-'EOF'
		unqualified-search-registries = ["docker.io"]
		[[registry]]
		location = "127.0.0.1"
		insecure = true
		[[registry]]
		location = "127.0.0.1:5000"
		insecure = true
	EOF
	cat >/etc/containers/storage.conf <<-EOF
		[storage]
		driver = "overlay"
		graphroot = "$dir/data"
		runroot = "/run/containers/storage"
	EOF
	# Soft and hard limits are equal: the service swaps them.
	cat >/etc/containers/containers.conf <<-'EOF'
		[containers]
		default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
		[engine]
		cgroup_manager = "cgroupfs"
		events_logger = "file"
		runtime = "runc"
		[network]
		network_backend = "netavark"
	EOF
}

# /proc is still that of the outer half, and so is the process id in it.
read -r pid _ </proc/self/stat
echo "$pid" >"$dir/session.part"
mv "$dir/session.part" "$dir/session.pid"

if [[ $mode != given ]]; then
	mount -t proc proc /proc
	ip link set lo up
fi
if [[ $mode == bare ]]; then
	mount -t tmpfs -o mode=755 tmpfs /run
	mkdir "$dir/test"
	# See below: the data of a host's engine lie in there.
	if [[ $(stat --file-system --format %T "$dir") == overlayfs ]]; then mount -t tmpfs tmpfs "$dir/test"; fi
	mkdir "$dir/test/tmp"
	export DOCKEREXEC_TEST_DIR=$dir/test TMPDIR=$dir/test/tmp
	status=0
	run "$@" 9>&- || status=$?
	exit "$status"
fi

if [[ $mode == private ]]; then
	# Nothing of the machine's /run is seen, and what is written to /etc is dropped.
	mount -t tmpfs -o mode=755 tmpfs /run
	mkdir -p /run/lock /run/etc/upper /run/etc/work
	mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work overlay /etc
	# The engine finds its own interfaces in /sys, but no AppArmor: a profile that it loads would stay.
	mkdir /run/cgroup
	mount --rbind /sys/fs/cgroup /run/cgroup
	mount -t sysfs sysfs /sys
	mount --rbind /run/cgroup /sys/fs/cgroup

	# The engine's layers are overlays, which cannot lie on an overlay, such as a container's root.
	mkdir -p "$dir/data"
	if [[ $(stat --file-system --format %T "$dir") == overlayfs ]]; then mount -t tmpfs tmpfs "$dir/data"; fi

	export DOCKEREXEC_TEST_HOST=unix://$dir/docker.sock DOCKEREXEC_TEST_ENGINE=$dir/engine
	unset DOCKER_TLS DOCKER_TLS_VERIFY DOCKER_CERT_PATH DOCKER_API_VERSION
	[[ ! -e $dir/bin ]] || PATH=$dir/bin:$PATH
	if [[ $DOCKEREXEC_TEST_PODMAN ]]; then prepare_podman; else echo '{}' >"$dir/daemon.json"; fi
	cp "$root/hack/engine.sh" "$dir/engine"
	"$dir/engine" start 9>&-
	say "engine $(docker --host "$DOCKEREXEC_TEST_HOST" version --format '{{.Server.Version}}, API {{.Server.APIVersion}}')"
	port=5000
else
	export DOCKEREXEC_TEST_ENGINE=
	port=0 # the kernel's choice
fi

# The password is 'canary-registry-password': tests look for it in what must not hold it.
# shellcheck disable=SC2016 # a hash, not a variable
echo 'tester:$2y$05$dockerexecdockerexecOuSKOl0Sm0Ha//9F4oL3IyAYbZCeYW.s6' >"$dir/htpasswd"
export DOCKEREXEC_TEST_USER=tester DOCKEREXEC_TEST_PASSWORD=canary-registry-password

cat >"$dir/registry.yml" <<-EOF
	version: 0.1
	log: {level: info, accesslog: {disabled: true}}
	http: {addr: "127.0.0.1:$port"}
	storage: {filesystem: {rootdirectory: "$dir/registry"}, delete: {enabled: true}}
	auth: {htpasswd: {realm: dockerexec, path: "$dir/htpasswd"}}
EOF
: >"$dir/registry.log"
setsid setpriv --pdeathsig KILL docker-registry serve "$dir/registry.yml" \
	</dev/null >>"$dir/registry.log" 2>&1 9>&- &
registry=$!
for ((i = 0; i < 300; i++)); do
	DOCKEREXEC_TEST_REGISTRY=$(sed -n 's/.*listening on \(127\.0\.0\.1:[0-9]*\).*/\1/p' "$dir/registry.log")
	[[ -z $DOCKEREXEC_TEST_REGISTRY ]] || break
	kill -0 "$registry" 2>/dev/null || break
	sleep 0.1
done
if [[ -z $DOCKEREXEC_TEST_REGISTRY ]]; then
	tail -n 30 "$dir/registry.log" >&2
	die "the registry does not come up"
fi
export DOCKEREXEC_TEST_REGISTRY DOCKEREXEC_TEST_IMAGE=$DOCKEREXEC_TEST_REGISTRY/testtask:1

export DOCKER_HOST=$DOCKEREXEC_TEST_HOST DOCKER_CONFIG=$dir/docker # not the user's own login
unset DOCKER_CONTEXT
mkdir -p "$DOCKER_CONFIG"
# On a disk that was here before, the registry has the image.
[[ -e $dir/image.pushed ]] || {
	docker import --change 'ENTRYPOINT ["/testtask"]' --change 'CMD ["print","3"]' \
		--change 'ENV PATH=/' --change 'ENV FROM_IMAGE=yes' "$dir/image.tar" "$DOCKEREXEC_TEST_IMAGE" &&
		printf '{"auths": {"%s": {"auth": "%s"}}}' "$DOCKEREXEC_TEST_REGISTRY" \
			"$(printf 'tester:%s' "$DOCKEREXEC_TEST_PASSWORD" | base64)" >"$DOCKER_CONFIG/config.json" &&
		docker push "$DOCKEREXEC_TEST_IMAGE" &&
		rm "$DOCKER_CONFIG/config.json" &&
		docker rmi "$DOCKEREXEC_TEST_IMAGE" &&
		touch "$dir/image.pushed"
} >"$dir/image.log" 2>&1 || {
	cat "$dir/image.log" >&2
	die "cannot make the test image"
}

mkdir -p "$dir/test/tmp"
export DOCKEREXEC_TEST_DIR=$dir/test TMPDIR=$dir/test/tmp

# Without namespaces the command would outlive this script's end by SIGKILL.
die_with=()
[[ $mode == private ]] || die_with=(setpriv --pdeathsig TERM)
status=0
run "${die_with[@]}" "$@" 9>&- || status=$?
trap '' HUP INT TERM USR1 USR2

if [[ $mode == given ]]; then
	docker rmi --force "$DOCKEREXEC_TEST_IMAGE" >/dev/null 2>&1 || true
	kill "$registry"
elif ((status != 0)); then
	say "exit status $status; the end of the engine's log:"
	tail -n 30 "$dir/engine.log" >&2
fi
exit "$status"

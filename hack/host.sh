#!/usr/bin/env bash
# Runs one host of hack/cluster.sh until it is killed: engine, registry, and a command that
# is told of both as with-engine.sh says. Whoever kills this process kills the host. The
# folder is the host's disk: started again with the same one, the host has all that it had.
#
#   host.sh DIR default|latest|podman ADDRESS COMMAND [ARG...]
#
# The host has namespaces of its own: network, mounts, processes. Its interface eth0 has the
# ADDRESS. The other end of the cable is at the bridge named swarm, outside, and is named
# after the folder: pull it with "ip link set NAME down".
set -euo pipefail

dir=$1 engine=$2 address=$3
shift 3
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=hack/lib.sh
source "$root/hack/lib.sh"

name=${dir##*/}
DOCKEREXEC_TEST_PODMAN=''
if [[ $engine == podman ]]; then DOCKEREXEC_TEST_PODMAN=yes; fi
export DOCKEREXEC_TEST_PODMAN DOCKEREXEC_TEST_GROUP=$DOCKEREXEC_TEST_GROUP.$name

# What a host forgets when it is switched off: its interfaces, its control groups, and what
# its engine has in files that say which processes run.
ip netns delete "$name" 2>/dev/null || true
ip link delete "$name" 2>/dev/null || true # it goes with the other end, but later
find /sys/fs/cgroup/"$DOCKEREXEC_TEST_GROUP" /sys/fs/cgroup/*/"$DOCKEREXEC_TEST_GROUP" \
	-depth -type d -exec rmdir {} + 2>/dev/null || true
mkdir -p "$dir"
rm -f "$dir"/{docker.pid,docker.sock,session.pid}
if [[ $engine == latest && ! -e $dir/bin ]]; then ln -s "$DOCKEREXEC_TEST_LATEST" "$dir/bin"; fi
[[ -e $dir/image.tar ]] || ln -s "$(cd "$dir/../.." && pwd)/image.tar" "$dir/image.tar"

ip netns add "$name"
ip link add "$name" type veth peer name eth0 netns "$name"
ip link set "$name" master swarm up
ip -n "$name" address add "$address/24" dev eth0
ip -n "$name" link set eth0 up

namespaces=(unshare --mount --propagation private --pid --fork --kill-child)
if [[ $engine == podman ]]; then namespaces=(bash "$root/hack/own-cgroup.sh" "$DOCKEREXEC_TEST_GROUP" "${namespaces[@]}"); fi
exec nsenter --net="/run/netns/$name" "${namespaces[@]}" bash "$root/hack/session.sh" "$dir" private "$@"

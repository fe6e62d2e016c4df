#!/usr/bin/env bash
# Builds the container image from the Dockerfile and runs it as Kubernetes
# would: PID 1, uid 65532, root filesystem read-only, no new privileges, a
# network of its own. Proves that the binary is static, that the image says
# what it promises, that the health check works without a shell and that
# SIGTERM to PID 1 drains.
#
# Needs root, buildah, and either a registry or debootstrap: where no registry
# can be reached, stand-ins for the two base images are made once (a minute)
# under their real names, and the Dockerfile is built unchanged.
#
#   IMAGE=workerd:ci       name of the image
#   COMMAND=dev            what to run for the drain test
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

IMAGE=${IMAGE:-workerd:ci}
COMMAND=${COMMAND:-dev}
# Neither needs an engine or more than root.
export STORAGE_DRIVER=${STORAGE_DRIVER:-vfs} BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}

skip() { echo "image-test: SKIPPED: $*"; exit 0; }
fail() { echo "image-test: FAILED: $*" >&2; exit 1; }
say() { echo "image-test: $*"; }

command -v buildah >/dev/null || skip "buildah is missing (apt-get install buildah)"
[ "$(id -u)" = 0 ] || skip "needs root, to mount the image and to change to its user"
for tool in unshare setpriv nsenter ip; do
	command -v "$tool" >/dev/null || skip "$tool is missing (apt-get install util-linux iproute2)"
done

arg() { sed -n "s/^ARG $1=//p" Dockerfile; }
golang=$(arg GOLANG) runtime=$(arg RUNTIME)
work=$(mktemp -d)
containers=()
# The process in the new namespaces is the only child of unshare.
inner() { cat "/proc/$outer/task/$outer/children" 2>/dev/null | tr -d ' '; }

cleanup() {
	if [ -n "${outer:-}" ]; then
		# PID 1 of the namespaces by name: with the change of user it has lost
		# whatever would tie it to its parent.
		kill -KILL $(inner) "$outer" 2>/dev/null || true
		wait "$outer" 2>/dev/null || true
	fi
	for c in "${containers[@]}"; do buildah rm "$c" >/dev/null 2>&1 || true; done
	rm -rf "$work"
}
trap cleanup EXIT

new_container() { # new_container VARIABLE IMAGE
	local -n made=$1
	made=$(buildah from --pull-never "$2")
	containers+=("$made")
}

have() { buildah inspect --type image "$1" >/dev/null 2>&1; }

build_golang_stand_in() {
	command -v debootstrap >/dev/null || skip "no registry, and debootstrap is missing (apt-get install debootstrap)"
	say "making a stand-in for $golang"
	debootstrap --variant=minbase --include=git bookworm "$work/rootfs" >"$work/debootstrap.log" 2>&1 ||
		{ tail -n 5 "$work/debootstrap.log"; skip "no registry, and debootstrap cannot reach a mirror"; }
	local c
	new_container c scratch
	buildah add -q "$c" "$work/rootfs" / >/dev/null
	buildah add -q "$c" "$(go env GOROOT)" /usr/local/go >/dev/null
	buildah config --env PATH=/usr/local/go/bin:/usr/bin:/bin --env GOPATH=/go --env GOTOOLCHAIN=local "$c"
	buildah commit -q "$c" "$golang" >/dev/null
	rm -rf "$work/rootfs"
}

build_runtime_stand_in() {
	say "making a stand-in for $runtime"
	local c m
	new_container c scratch
	m=$(buildah mount "$c")
	mkdir -p "$m/etc/ssl/certs" "$m/proc" "$m/dev" "$m/home/nonroot"
	mkdir -m 1777 "$m/tmp"
	cp /etc/ssl/certs/ca-certificates.crt "$m/etc/ssl/certs/"
	echo 'nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin' >"$m/etc/passwd"
	buildah commit -q "$c" "$runtime" >/dev/null
}

base() { # base IMAGE STAND_IN: what is there, else the registry's, else a stand-in
	if ! have "$1" && ! timeout 30 buildah pull -q "$1" >/dev/null 2>&1; then "$2"; fi
}

build_image() {
	local mounts=() trust=/etc/ssl/certs
	# The stand-in trusts whom this machine trusts.
	[ ! -d "$trust" ] || mounts=(-v "$trust:$trust:ro")
	say "building $IMAGE"
	buildah bud --pull-never --format docker "${mounts[@]}" -t "$IMAGE" . >"$work/build.log" 2>&1 ||
		{ tail -n 30 "$work/build.log"; fail "the Dockerfile does not build"; }
}

expect() { # expect WHAT TEMPLATE VALUE
	local got
	got=$(buildah inspect --type image --format "{{$2}}" "$IMAGE")
	[ "$got" = "$3" ] || fail "$1 is '$got', want '$3'"
}

check_config() {
	expect user .Docker.Config.User 65532:65532
	expect entrypoint .Docker.Config.Entrypoint '[/usr/local/bin/workerd]'
	expect command .Docker.Config.Cmd '[run /etc/workerd/workerd.yaml]'
	expect "stop signal" .Docker.Config.StopSignal SIGTERM
	expect "health check" .Docker.Config.Healthcheck.Test '[CMD /usr/local/bin/workerd healthcheck]'
	expect "exposed ports" .Docker.Config.ExposedPorts 'map[8422/tcp:{}]'
	say "the image says what it promises"
}

check_binary() {
	if readelf -lW "$root/usr/local/bin/workerd" 2>/dev/null | grep -q INTERP; then fail "the binary is not static"; fi
	say "binary: $(du -m "$root/usr/local/bin/workerd" | cut -f1) MiB, static, $(go version -m "$root/usr/local/bin/workerd" | awk '$1 == "mod" {print $3}')"
}

# Inside: a mount namespace with the image read-only and a tmpfs at /tmp, a
# network with nothing but lo, and workerd as PID 1.
start() {
	WORKERD_DEV_STORE=/tmp/workerd-data unshare --pid --fork --mount --net sh -c '
		set -e
		ip link set lo up
		mount --bind "$1" "$1"
		mount -t proc proc "$1/proc"
		mount -t tmpfs -o mode=1777,size=64m tmpfs "$1/tmp"
		mount -o remount,bind,ro "$1"
		shift
		exec setpriv --no-new-privs chroot --userspec=65532:65532 "$@"
	' sh "$root" "$root" /usr/local/bin/workerd "$COMMAND" >"$work/log" 2>&1 &
	outer=$!
}

inside() { # runs the image's binary beside the first, as docker exec and HEALTHCHECK do
	nsenter --target "$(inner)" --net --pid --mount setpriv --no-new-privs chroot --userspec=65532:65532 "$root" /usr/local/bin/workerd "$@"
}

check_run() {
	start
	local tries=0
	until inside healthcheck >"$work/health" 2>&1; do
		tries=$((tries + 1))
		kill -0 "$outer" 2>/dev/null || { cat "$work/log"; fail "workerd $COMMAND ended early"; }
		[ "$tries" -lt 60 ] || { cat "$work/health"; tail -n 20 "$work/log"; fail "not healthy after 30 s"; }
		sleep 0.5
	done
	local pid status
	pid=$(inner)
	status=$(cat "/proc/$pid/status")
	grep -q '^Uid:\s*65532\s*65532\s*65532' <<<"$status" || fail "does not run as 65532"
	grep -q '^NoNewPrivs:\s*1' <<<"$status" || fail "may gain privileges"
	grep -q '^CapEff:\s*0000000000000000' <<<"$status" || fail "holds capabilities"
	grep -q '^NSpid:.*\s1$' <<<"$status" || fail "is not PID 1"
	say "healthy as PID 1, uid 65532, read-only root, no privileges"
	local code=0
	kill -TERM "$pid"
	timeout 40 tail --pid="$outer" -f /dev/null || fail "SIGTERM did not end it within 40 s"
	wait "$outer" || code=$?
	outer=
	[ "$code" = 0 ] || { tail -n 20 "$work/log"; fail "exit code $code after SIGTERM, want 0: a clean drain"; }
	say "SIGTERM as PID 1: drained, exit code 0"
}

base "$golang" build_golang_stand_in
base "$runtime" build_runtime_stand_in
build_image
check_config
new_container ctr "$IMAGE"
root=$(buildah mount "$ctr")
mkdir -p "$root/proc" "$root/tmp"
check_binary
check_run
say "passed in $SECONDS s"

#!/bin/sh
# Installs the Debian packages that are missing, and only those.
#   deploy/setup.sh build|run|acme|test …
set -eu

build="build-essential pkg-config protobuf-c-compiler protobuf-compiler libprotobuf-dev libprotobuf-c-dev
 libgrpc-dev libevent-dev libssl-dev libcurl4-openssl-dev libsqlite3-dev libjansson-dev libyaml-dev
 libpcre2-dev libnghttp2-dev libc-ares-dev libjose-dev libcrypt-dev libseccomp-dev libcsv-dev libldap-dev libpq-dev zlib1g-dev ca-certificates"
run="libgrpc29 libprotobuf-c1 libevent-2.1-7 libevent-pthreads-2.1-7 libssl3 libcurl4 libsqlite3-0 libjansson4
 libyaml-0-2 libpcre2-8-0 libnghttp2-14 libc-ares2 libjose0 libcrypt1 libseccomp2 libcsv3 libldap-2.5-0 libpq5 ca-certificates"
acme="python3-acme"
test="libcmocka-dev clang-14 clang-format-14 clang-tidy-14 libclang-rt-14-dev llvm-14 python3 python3-pytest
 python3-grpcio python3-grpc-tools python3-protobuf python3-requests python3-selenium python3-websocket
 python3-acme python3-yaml python3-jwt python3-cryptography python3-h2 chromium chromium-driver nginx-light
 haproxy iproute2 iptables wrk slowhttptest nghttp2-client nghttp2-server golang-go postgresql-15 libfaketime systemd curl sqlite3 nodejs npm git jq"

wanted=""
for group in "$@"; do
    case $group in
    build) wanted="$wanted $build" ;;
    run) wanted="$wanted $run" ;;
    acme) wanted="$wanted $acme" ;;
    test) wanted="$wanted $test" ;;
    *)
        echo "setup: '$group' is no group of packages; there are build, run, acme and test" >&2
        exit 2
        ;;
    esac
done

missing=""
for package in $wanted; do
    # A Node.js or Go of one's own serves as well as Debian's.
    case $package in
    nodejs | npm) own=npm ;;
    golang-go) own=go ;;
    *) own="" ;;
    esac
    if [ -n "$own" ] && command -v "$own" >/dev/null 2>&1; then
        continue
    fi
    status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
    [ "$status" = "install ok installed" ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

sudo=""
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "setup: these packages are missing and only root can install them:$missing" >&2
        exit 1
    fi
    sudo=sudo
fi
echo "Installing Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086
if ! { $sudo apt-get update -q && $sudo apt-get install -y -q --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "setup: apt-get could not install the packages named above" >&2
    exit 1
fi

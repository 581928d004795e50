#!/usr/bin/env bash
# Debian packages that the tests use; training and sweeping need none of them (training.compile: g++).
#   chromium                          browser tests of the MLflow view, the report and the gallery
#   postgresql                        the tracking and study tests against a real PostgreSQL
#   g++                               compiled training steps (training.compile) on CPUs
#   caddy docker-compose              the team's deployment without containers; its file is checked
#   openssh-server rsync iproute2     the cluster tests on network namespaces
# Idempotent. Without root or apt the tests that need a missing program say so and are skipped.
set -euo pipefail

missing=()
command -v chromium >/dev/null || missing+=(chromium)
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing+=(postgresql)
command -v g++ >/dev/null || missing+=(g++)
command -v caddy >/dev/null || missing+=(caddy)
command -v docker-compose >/dev/null || missing+=(docker-compose)
command -v sshd >/dev/null || [ -x /usr/sbin/sshd ] || missing+=(openssh-server)
command -v rsync >/dev/null || missing+=(rsync)
command -v ip >/dev/null || [ -x /usr/sbin/ip ] || [ -x /sbin/ip ] || missing+=(iproute2)
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "system-packages: missing: ${missing[*]}; their tests will be skipped (install them as root)" >&2
    exit 0
fi
echo "system-packages: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# RUNLEVEL: servers that come with them (PostgreSQL, Caddy) are installed, not started.
RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null

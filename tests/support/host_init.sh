#!/usr/bin/env bash
# First process of a test host, in fresh network, pid, mount, uts and ipc namespaces.
#
#     host_init.sh NAME ROOT VENV PYTHON REPOSITORY SHOW_REPOSITORY
#
# The host gets a /root, /tmp, /run and /dev/shm of its own (under ROOT), and its own copy-on-write
# view of the environment VENV; the interpreter PYTHON stays visible, the repository only where
# SHOW_REPOSITORY is 1. Then sshd runs, and this shell reaps what its sessions leave behind.
set -euo pipefail
name=$1 root=$2 venv=$3 python=$4 repository=$5 show=$6

hostname "$name"
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs stage /mnt
mkdir /mnt/venv /mnt/python /mnt/repository /mnt/root
mount --bind "$root" /mnt/root
mount -t overlay overlay -o "lowerdir=$venv,upperdir=$root/venv,workdir=$root/work" /mnt/venv
mount --bind "$python" /mnt/python
mount --bind "$repository" /mnt/repository
mount --bind /mnt/root/etc/hosts /etc/hosts
mount --bind /mnt/root/etc/shadow /etc/shadow
mount --bind /mnt/root/home /root
mount --bind /mnt/root/tmp /tmp
mount -t tmpfs run /run
mkdir /run/sshd
mount -t tmpfs -o size=2g shm /dev/shm

if [ "$show" = 1 ]; then
    mkdir -p "$repository"
    mount --bind /mnt/repository "$repository"
elif [ -d "$repository" ]; then
    mount -t tmpfs hidden "$repository"
fi
mkdir -p "$venv" "$python"
mount --bind /mnt/venv "$venv"
mount --bind /mnt/python "$python"
umount -l /mnt

export HOME=/root
cd /root
ip link set lo up
/usr/sbin/sshd -D -e -f /root/.ssh/sshd_config &
wait $!

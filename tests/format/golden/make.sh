#!/bin/sh
# Makes the golden repositories: make.sh NAME RESTIC VERSION COMPRESSION
# e.g. make.sh restic-0.19-v2 /usr/bin/restic 2 auto
set -eu
name=$1 restic=$2 version=$3 compression=$4
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export RESTIC_PASSWORD=golden RESTIC_REPOSITORY="$work/repo" RESTIC_CACHE_DIR="$work/cache"
[ "$compression" = none ] || export RESTIC_COMPRESSION="$compression"
mkdir -p "$work/source/sub/deep/er" "$work/source/empty"
cd "$work/source"
seq 1 400 > numbers
printf '{"nodes":[]}\n' > looks-like-an-empty-tree
: > nothing
printf 'once\n' > 'name with spaces and "quotes"'
printf 'raw\n' > "$(printf 'not-utf8-\377')"
ln -s numbers link
ln numbers hard
seq 1 300 > sub/a
seq 301 600 > sub/deep/b
seq 601 900 > sub/deep/er/c
"$restic" -q init --repository-version "$version"
"$restic" -q backup --host golden --time '2026-01-01 12:00:00' .
seq 1 401 > sub/a
rm sub/deep/b
"$restic" -q backup --host golden --time '2026-01-02 12:00:00' --tag second .
tar -C "$work" --sort=name --owner=0 --group=0 -czf "$here/$name.tar.gz" repo

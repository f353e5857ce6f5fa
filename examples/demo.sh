#!/bin/sh
# The main job for real, in one folder: plan, repository, full and incremental backup, retention, restore, compare.
# Usage: demo.sh [DIRECTORY]    what is backed up; default /usr/share/doc
# DEMO_HOME (default: demo/ in this checkout) is the only place that is written to; the next run begins by removing it.
set -eu

tree=$(cd "${1:-/usr/share/doc}" && pwd -P)
home=${DEMO_HOME:-$(cd "$(dirname "$0")/.." && pwd -P)/demo}
mark="$home/.made-by-drctl-demo"

step() { printf '\n== %s\n' "$*"; }
run() { printf '$ drctl %s\n' "$*"; drctl --plan "$home/drctl/drctl.yaml" "$@"; }

if [ -e "$home" ] && [ ! -e "$mark" ]; then
    echo "demo: $home exists and was not made by this script; name another place with DEMO_HOME" >&2
    exit 1
fi
case "$home/" in
    "$tree"/*) echo "demo: $home lies inside $tree; name another place with DEMO_HOME" >&2; exit 1 ;;
esac
rm -rf "$home"
mkdir -p "$home"
touch "$mark"

step "1. A copy of $tree, so that something can change in it"
cp -a "$tree" "$home/data"
printf '%s\n' "$(find "$home/data" -type f | wc -l) files, $(du -sh "$home/data" | cut -f1)"

step "2. A plan for it, an encrypted repository, and its key"
drctl init "$home/drctl" --path "$home/data" --service demo

step "3. The plan is checked: every name in it is defined, every policy can be kept"
run plan validate

step "4. A full backup"
run backup run --full

step "5. One file new, one changed, one gone; then an incremental backup"
printf 'new\n' >"$home/data/new file"
changed=$(find "$home/data" -type f ! -name 'new file' | sort | sed -n 1p)
gone=$(find "$home/data" -type f ! -name 'new file' | sort | sed -n 2p)
[ -z "$changed" ] || printf 'one line more\n' >>"$changed"
[ -z "$gone" ] || rm "$gone"
run backup run
run backup list

step "6. What retention would delete, and why"
run retention plan
printf '%s\n' "Nothing yet: both are minutes old. In 40 days, if no backup came in between:"
run retention plan --at "$(date -d '+40 days' +%F)"

step "7. Everything is read back and checked"
run repo check --read-data

step "8. The newest snapshot is restored and compared byte for byte"
run restore latest --target "$home/restored" --root "$home/data" --verify
diff -r --no-dereference "$home/data" "$home/restored"
echo "diff -r finds no difference"

step "9. Where everything lies"
cat <<END
plan        $home/drctl/drctl.yaml
key         $home/drctl/repository.key
repository  $home/drctl/repository ($(du -sh "$home/drctl/repository" | cut -f1))
data        $home/data ($(du -sh "$home/data" | cut -f1))
restored    $home/restored

Go on with it:      .venv/bin/drctl --plan $home/drctl/drctl.yaml backup list
Without drctl too:  restic -r $home/drctl/repository -p $home/drctl/repository.key snapshots
END

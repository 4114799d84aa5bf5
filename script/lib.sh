# shellcheck shell=bash
# What the scripts here share. Source it: it moves to the top of the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\n== %s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Debian's interpreter, which has Debian's modules; a python3 found first on PATH may be another one.
export PYTHON=/usr/bin/python3

# meson_build DIR [TARGET...] -- [SETUP OPTION...]: configures when the options or CC changed, and builds.
# One build of a directory at a time: a second one waits for the first.
meson_build() {
  local dir=$1 targets=() options
  shift
  while [ "$1" != -- ]; do targets+=("$1"); shift; done
  shift
  mkdir -p "$dir"
  (
    exec 9<"$dir"
    flock 9
    options="CC=${CC:-cc} $*"
    if [ ! -f "$dir/build.ninja" ] || [ "$(cat "$dir/.options" 2>/dev/null)" != "$options" ]; then
      find "$dir" -mindepth 1 -delete
      meson setup "$dir" "$@" >"$dir/setup.log" 2>&1 9<&- || { tail -n 5 "$dir/setup.log"; exit 1; }
      printf '%s' "$options" >"$dir/.options"
    fi
    { ninja -C "$dir" --quiet "${targets[@]}" 9<&-; } | { grep -v "^ninja: no work to do" || :; }
  )
}

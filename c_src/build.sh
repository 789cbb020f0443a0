#!/bin/sh
# build.sh [clean]: builds priv/erlang_python.so in _build/cmake, or removes both.
#
# What rebar3 runs at every compile. Configuring again each time costs half a second and is what
# notices that PYTHON_CONFIG, python3-config or erl now mean something else. Options given by hand
# (cmake ../../c_src -DPERF_BUILD=ON in _build/cmake) stay until the tree is removed.
set -eu
cd "$(dirname "$0")/.."
tree=_build/cmake

if [ "${1:-build}" = clean ]; then
    rm -rf "$tree" priv/erlang_python.so
    exit 0
fi

mkdir -p "$tree"
if command -v flock >/dev/null; then # two builds at once in one tree would ruin each other
    exec 9>_build/cmake.lock
    flock 9
fi

# A tree that was copied or moved here belongs to the sources it came from.
home=$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$tree/CMakeCache.txt" 2>/dev/null || true)
if [ -n "$home" ] && [ "$home" != "$(pwd -P)/c_src" ]; then
    rm -rf "$tree"
fi

jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
cmake -S c_src -B "$tree" >/dev/null
cmake --build "$tree" --parallel "$jobs" >/dev/null

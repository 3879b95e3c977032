#!/bin/sh
# run.sh BUILD SOURCE MODEL VERSION [CFLAGS]: install BUILD into a stage, build the consumer against it with pkg-config and with CMake, shared
# and static, run all four; what is installed must be there.
set -eu
build=$1 source=$2 model=$3 version=$4 flags=${5:-}
stage=$build/stage
rm -rf "$stage" "$build/consumer"
cmake --install "$build" --prefix "$stage" > /dev/null
for f in bin/linnet include/linnet.h share/man/man1/linnet.1 share/man/man1/linnet-run.1 share/bash-completion/completions/linnet \
	share/zsh/site-functions/_linnet; do
	test -s "$stage/$f" || { echo "$f is not installed"; exit 1; }
done
pc=$(find "$stage" -name linnet.pc)
lib=$(dirname "$(dirname "$pc")")
export PKG_CONFIG_PATH="$lib/pkgconfig" LD_LIBRARY_PATH="$lib"
mkdir -p "$build/consumer"
cc=${CC:-cc}
$cc $flags -std=c11 -Wall -Wextra "$source/consumer.c" -o "$build/consumer/pc_shared" $(pkg-config --cflags --libs linnet)
$cc $flags -std=c11 "$source/consumer.c" -o "$build/consumer/pc_static" $(pkg-config --cflags linnet) "$lib/liblinnet.a" \
	$(pkg-config --libs --static linnet | sed 's/-llinnet//')
cmake -S "$source" -B "$build/consumer/cmake" -DCMAKE_PREFIX_PATH="$stage" -DCMAKE_C_FLAGS="$flags" > /dev/null
cmake --build "$build/consumer/cmake" > /dev/null
for p in pc_shared pc_static cmake/shared cmake/static; do
	out=$("$build/consumer/$p" "$model")
	test "$out" = "linnet $version: agrees" || { echo "$p printed: $out"; exit 1; }
done
if nm -D --defined-only "$lib/liblinnet.so" | grep -v ' linnet_'; then
	echo "the shared library exports more than its header's names"
	exit 1
fi

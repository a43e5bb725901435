#!/usr/bin/env bash
# The target files hold the same bodies compiled for different instruction sets. A weak symbol in one of them could be
# the copy that the linker keeps for everyone, and crash on a machine without those instructions: there must be none.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case $(uname -m) in
  x86_64)
    avx512=-mavx512f,-mavx512bw,-mavx512dq,-mavx512vl,-mfma
    targets="scalar: avx2:-mavx2,-mfma,-mf16c avx512:$avx512 avx512bf16:$avx512,-mavx512bf16"
    ;;
  *) targets="scalar: neon:" ;;
esac
for target in $targets; do
  name=${target%%:*}
  flags=${target#*:}
  ${CXX:-g++} -std=c++20 -O1 -w ${flags//,/ } -c "csrc/target_$name.cpp" -o "$work/$name.o"
  if nm -C "$work/$name.o" | grep -E ' [WVuw] '; then
    echo "target_$name.cpp: expected no weak symbol, got the above" >&2
    exit 1
  fi
done
echo "target files: no weak symbols"

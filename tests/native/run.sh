#!/usr/bin/env bash
# Builds and runs the native tests: run.sh plain | sanitized | thread | emulated | fuzz [SECONDS] | afl [SECONDS]
#   thread: under ThreadSanitizer, on threads of our own (it cannot see what libgomp synchronises).
#   emulated: AVX-512 through avx512_emulated.h, and NEON cross-compiled under qemu (g++-aarch64-linux-gnu, qemu-user).
#             A missing tool is named and fails the run.
#   fuzz: libFuzzer, with AddressSanitizer and UBSan, on the kernels and on caches, for 30 seconds each or as many as are
#             given. What fails is printed, and its input written to build/native: `build/native/fuzz-kernels
#             build/native/crash-...` (or fuzz-cache) repeats it.
#   afl: caches once more, under AFL++, for 60 seconds or as many as are given; inputs that fail are in
#             build/native/afl/default/crashes, and `build/native/afl-cache` repeats them.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=build/native
mkdir -p "$out"
core="dispatch driver parallel plan spans step"
cxx=${CXX:-g++}
avx2="-mavx2 -mfma -mf16c"
avx512="-mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma"
avx512bf16="$avx512 -mavx512bf16"

# Flags for a target that this machine cannot run: it must link, no more, and sanitizers make it slow to compile.
flags_for() {
  local isa=$1 flags=$2
  case $isa:$flags in
    avx512bf16:*sanitize*) grep -q avx512_bf16 /proc/cpuinfo || flags=-O0 ;;
    avx512:*sanitize*) grep -q avx512vl /proc/cpuinfo || flags=-O0 ;;
  esac
  echo "$flags"
}

# build COMPILER NAME FLAGS TARGETS...: one object per target ("scalar", "avx2:-mavx2 ..."), then the tests.
build() {
  local compiler=$1 name=$2 flags=$3 objects=() jobs=() target
  shift 3
  for target in "$@"; do
    local isa=${target%%:*} extra=""
    [[ $target == *:* ]] && extra=${target#*:}
    $compiler -std=c++20 -ffp-contract=off -w $(flags_for "$isa" "$flags") $extra -Icsrc -c "csrc/target_$isa.cpp" \
      -o "$out/$name-$isa.o" &
    jobs+=($!)
    objects+=("$out/$name-$isa.o")
  done
  for job in "${jobs[@]}"; do wait "$job"; done
  local source warned="-std=c++20 -Wall -Wextra $flags -Icsrc"
  for source in $core; do
    $compiler $warned -c "csrc/$source.cpp" -o "$out/$name-$source.o"
    objects+=("$out/$name-$source.o")
  done
  $compiler $warned tests/native/test_kernels.cpp "${objects[@]}" -pthread -ldl -o "$out/$name"
  $compiler $warned tests/native/test_cache.cpp "${objects[@]}" -pthread -ldl -o "$out/$name-cache"
  $compiler $warned tests/native/test_step.cpp "$out/$name-"{step,plan,spans}.o -o "$out/$name-steps"
  $compiler $warned tests/native/test_parallel.cpp "$out/$name-parallel.o" -pthread -ldl -o "$out/$name-parallel"
}

# build_fuzz COMPILER NAME FLAGS TARGETS...: NAME-kernels or NAME-cache. The kernels are not optimised: clang takes
# minutes for what its sanitizers make of them then.
build_fuzz() {
  local compiler=$1 name=$2 objects=() target source
  local checked="-std=c++20 -gline-tables-only -fno-sanitize-recover=all -fsanitize=address,undefined"
  local watched="$checked $3"
  shift 3
  while read -r target; do
    local isa=${target%%:*} extra=""
    [[ $target == *:* ]] && extra=${target#*:}
    $compiler $watched -O0 -ffp-contract=off -w $extra -Icsrc -c "csrc/target_$isa.cpp" -o "$out/$name-$isa.o"
    objects+=("$out/$name-$isa.o")
  done < <(native_targets)
  for source in $core; do
    $compiler $watched -O1 -Icsrc -c "csrc/$source.cpp" -o "$out/$name-$source.o"
    objects+=("$out/$name-$source.o")
  done
  for target in "$@"; do
    $compiler $checked -O1 -fsanitize=fuzzer -Icsrc "tests/native/fuzz_$target.cpp" "${objects[@]}" -pthread -ldl \
      -o "$out/$name-$target"
  done
}

need() {
  command -v "$1" >/dev/null || { echo "$1: expected on this machine (Debian package $2)" >&2; exit 1; }
}

native_targets() {
  if [[ $(uname -m) == x86_64 ]]; then printf '%s\n' scalar "avx2:$avx2" "avx512:$avx512" "avx512bf16:$avx512bf16"; else printf '%s\n' scalar neon; fi
}

case $1 in
  plain)
    mapfile -t targets < <(native_targets)
    build "$cxx" plain "-O2" "${targets[@]}"
    "$out/plain"
    "$out/plain-cache"
    "$out/plain-steps"
    "$out/plain-parallel"
    "$out/plain-parallel" libgomp
    ;;
  sanitized)
    mapfile -t targets < <(native_targets)
    build "$cxx" sanitized "-O2 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all" "${targets[@]}"
    "$out/sanitized" brief
    "$out/sanitized-cache" brief
    "$out/sanitized-steps"
    "$out/sanitized-parallel"
    "$out/sanitized-parallel" libgomp
    ;;
  thread)
    mapfile -t targets < <(native_targets)
    build "$cxx" thread "-O2 -g1 -fsanitize=thread" "${targets[@]}"
    "$out/thread" brief
    "$out/thread-cache" brief
    "$out/thread-steps"
    "$out/thread-parallel"
    ;;
  emulated)
    if [[ $(uname -m) == x86_64 ]]; then
      build "$cxx" emulated "-O1 -mfma -DMMHA_EMULATE_AVX512" avx512bf16: avx512: scalar "avx2:$avx2"
      "$out/emulated"
      "$out/emulated-cache" brief
      "$out/emulated-steps"
      need aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
      need qemu-aarch64 qemu-user
      build aarch64-linux-gnu-g++ neon "-O2 -static" scalar neon
      qemu-aarch64 "$out/neon" brief
      qemu-aarch64 "$out/neon-cache" brief
      qemu-aarch64 "$out/neon-steps"
      qemu-aarch64 "$out/neon-parallel"
    fi
    ;;
  fuzz)
    need clang++ clang
    build_fuzz clang++ fuzz -fsanitize=fuzzer-no-link kernels cache
    for target in kernels cache; do
      mkdir -p "$out/corpus-$target"
      "$out/fuzz-$target" -max_total_time="${2:-30}" -max_len=256 -len_control=0 -timeout=60 -artifact_prefix="$out/" \
        -print_final_stats=1 "$out/corpus-$target"
    done
    ;;
  afl)
    need afl-clang-fast++ afl++
    export AFL_DONT_OPTIMIZE=1 AFL_QUIET=1 AFL_NO_UI=1 AFL_SKIP_CPUFREQ=1 AFL_NO_AFFINITY=1
    build_fuzz afl-clang-fast++ afl "" cache
    rm -rf "$out/afl"
    mkdir -p "$out/afl-seeds"
    seq 40 > "$out/afl-seeds/numbers"
    head -c 128 csrc/cache.h > "$out/afl-seeds/words"
    afl-fuzz -i "$out/afl-seeds" -o "$out/afl" -G 256 -t 60000 -V "${2:-60}" -- "$out/afl-cache"
    grep -E '^(execs_done|corpus_count|bitmap_cvg|saved_crashes|saved_hangs)' "$out/afl/default/fuzzer_stats"
    grep -q '^saved_crashes *: 0$' "$out/afl/default/fuzzer_stats"
    ;;
  *)
    echo "run.sh: expected plain, sanitized, thread, emulated, fuzz or afl, got '$1'" >&2
    exit 2
    ;;
esac

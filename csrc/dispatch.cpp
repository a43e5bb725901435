#include "dispatch.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace mmha {
namespace {

struct Target {
  const KernelTable* table;
  bool (*supported)();
};

// GCC's and clang's __builtin_cpu_supports checks CPUID and that the OS saves the wide registers (XGETBV).
#if defined(__x86_64__)
bool has_avx512() {
#ifdef MMHA_EMULATE_AVX512
  return true;
#endif
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx512bf16() {
#ifdef MMHA_EMULATE_AVX512
  return true;
#endif
  return has_avx512() && __builtin_cpu_supports("avx512bf16");
}

// Clang 14 does not know the name "f16c".
bool has_f16c() {
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }
#endif

// Best first.
const Target kTargets[] = {
#if defined(__x86_64__)
    {&kAvx512Bf16Table, has_avx512bf16},
    {&kAvx512Table, has_avx512},
    {&kAvx2Table, has_avx2},
#elif defined(__aarch64__)
    {&kNeonTable, [] { return true; }},
#endif
    {&kScalarTable, [] { return true; }},
};

std::string join(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& n : names) out += (out.empty() ? "" : ", ") + n;
  return out;
}

const KernelTable* find(const std::string& name, const char* argument) {
  for (const Target& t : kTargets)
    if (name == t.table->name && t.supported()) return t.table;
  throw std::invalid_argument("`" + std::string(argument) + "`: expected one of " + join(available_isas()) +
                              " on this machine, got '" + name + "'");
}

const KernelTable* first_choice() {
  if (const char* forced = std::getenv("MMHA_ISA"); forced && *forced) return find(forced, "MMHA_ISA");
  for (const Target& t : kTargets)
    if (t.supported()) return t.table;
  return &kScalarTable;
}

std::atomic<const KernelTable*>& in_use() {
  static std::atomic<const KernelTable*> table{first_choice()};
  return table;
}

}  // namespace

const KernelTable& kernels() { return *in_use().load(std::memory_order_relaxed); }

std::vector<std::string> compiled_isas() {
  std::vector<std::string> names;
  for (const Target& t : kTargets) names.push_back(t.table->name);
  return names;
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Target& t : kTargets)
    if (t.supported()) names.push_back(t.table->name);
  return names;
}

std::string select_isa(const std::string& name) { return in_use().exchange(find(name, "isa"))->name; }

}  // namespace mmha

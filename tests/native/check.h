// What the native tests say when numbers are not what they should be.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace mmha {

inline int failures = 0;

inline void expect(bool ok, const std::string& what) {
  if (ok) return;
  std::printf("FAILED %s\n", what.c_str());
  failures++;
}

// Relative to the norm of what is expected (a row with one key has gradients that cancel to 0), plus `floor` a number;
// infinities must agree.
inline void compare(const std::string& what, const std::vector<float>& got, const std::vector<double>& want,
                    double limit, double floor) {
  double error = 0, norm = 0;
  bool same = true;
  for (size_t i = 0; i < got.size(); i++) {
    if (std::isinf(want[i]) || !std::isfinite(got[i])) {
      same &= (double)got[i] == want[i];
      continue;
    }
    error += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  if (same && std::sqrt(error) <= limit * std::sqrt(norm) + floor) return;
  std::printf("FAILED %s: error %.2e of %.2e%s\n", what.c_str(), std::sqrt(error), std::sqrt(norm),
              same ? "" : ", not finite where it should be");
  failures++;
}

inline void same_bits(const std::string& what, const void* a, const void* b, size_t bytes) {
  expect(bytes == 0 || std::memcmp(a, b, bytes) == 0, what + ": bits differ");
}
inline void same_bits(const std::string& what, const std::vector<float>& a, const std::vector<float>& b) {
  same_bits(what, a.data(), b.data(), a.size() * sizeof(float));
}

}  // namespace mmha

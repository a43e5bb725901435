// No instruction set assumed: four floats in a struct and plain loops, which any compiler turns into what the
// machine has. Multiply and add round separately (there may be no fused instruction).
#pragma once
#include <stdint.h>
#include <string.h>

namespace mmha {
namespace {

constexpr int kLanes = 4;
constexpr int kPanelVectors = 2;
constexpr int kKeyRows = 4;
constexpr int kValueRows = 4;
constexpr int kGemmVectors = 2;
constexpr int kGemmRows = 4;

struct Vec {
  float f[kLanes];
};
struct Mask {
  bool b[kLanes];
};

#define MMHA_INLINE static inline __attribute__((always_inline))
#define MMHA_LANES(expression)                            \
  Vec r;                                                  \
  for (int i = 0; i < kLanes; i++) r.f[i] = (expression); \
  return r

MMHA_INLINE Vec set1(float x) { MMHA_LANES(x); }
MMHA_INLINE Vec zero() { return set1(0.0f); }
MMHA_INLINE Vec load(const float* p) { MMHA_LANES(p[i]); }
MMHA_INLINE void store(float* p, Vec v) {
  for (int i = 0; i < kLanes; i++) p[i] = v.f[i];
}
MMHA_INLINE Vec load_part(const float* p, int n) { MMHA_LANES(i < n ? p[i] : 0.0f); }
MMHA_INLINE void store_part(float* p, Vec v, int n) {
  for (int i = 0; i < n; i++) p[i] = v.f[i];
}
MMHA_INLINE Vec add(Vec a, Vec b) { MMHA_LANES(a.f[i] + b.f[i]); }
MMHA_INLINE Vec sub(Vec a, Vec b) { MMHA_LANES(a.f[i] - b.f[i]); }
MMHA_INLINE Vec mul(Vec a, Vec b) { MMHA_LANES(a.f[i] * b.f[i]); }
MMHA_INLINE Vec div(Vec a, Vec b) { MMHA_LANES(a.f[i] / b.f[i]); }
MMHA_INLINE Vec fma(Vec a, Vec b, Vec c) { MMHA_LANES(a.f[i] * b.f[i] + c.f[i]); }
// The second operand where either is NaN, as on x86.
MMHA_INLINE Vec max(Vec a, Vec b) { MMHA_LANES(a.f[i] > b.f[i] ? a.f[i] : b.f[i]); }

MMHA_INLINE Mask lane_mask(uint32_t bits) {
  Mask m;
  for (int i = 0; i < kLanes; i++) m.b[i] = (bits >> i) & 1u;
  return m;
}
MMHA_INLINE Vec select(Mask m, Vec yes, Vec no) { MMHA_LANES(m.b[i] ? yes.f[i] : no.f[i]); }
MMHA_INLINE Mask equal(Vec a, Vec b) {
  Mask m;
  for (int i = 0; i < kLanes; i++) m.b[i] = a.f[i] == b.f[i];
  return m;
}
// x, or 0 where x_exponent < bound; a NaN exponent keeps x.
MMHA_INLINE Vec zero_below(Vec x, Vec exponent, Vec bound) { MMHA_LANES(exponent.f[i] < bound.f[i] ? 0.0f : x.f[i]); }
MMHA_INLINE bool any_differs(Vec a, Vec b) {
  bool any = false;
  for (int i = 0; i < kLanes; i++) any |= !(a.f[i] == b.f[i]);
  return any;
}

struct Split {
  Vec fraction;
  int32_t exponent[kLanes];
};
MMHA_INLINE Split split_exponent(Vec x) {
  Split s;
  for (int i = 0; i < kLanes; i++) {
    // Adding 1.5 * 2^23 rounds to the nearest integer, ties to even; NaN and out of range give 0.
    const float shifted = x.f[i] + 12582912.0f;
    const float n = shifted - 12582912.0f;
    s.exponent[i] = n > -4194304.0f && n < 4194304.0f ? (int32_t)n : 0;
    s.fraction.f[i] = x.f[i] - n;
  }
  return s;
}
MMHA_INLINE Vec scale_by_exponent(Vec x, Split s) {
  Vec r;
  for (int i = 0; i < kLanes; i++) {
    uint32_t u;
    memcpy(&u, &x.f[i], 4);
    u += (uint32_t)s.exponent[i] << 23;
    memcpy(&r.f[i], &u, 4);
  }
  return r;
}

MMHA_INLINE float sum_lanes(Vec v) { return (v.f[0] + v.f[2]) + (v.f[1] + v.f[3]); }

MMHA_INLINE void transpose(Vec* r) {
  for (int i = 0; i < kLanes; i++)
    for (int j = 0; j < i; j++) {
      const float t = r[i].f[j];
      r[i].f[j] = r[j].f[i];
      r[j].f[i] = t;
    }
}

#undef MMHA_LANES
}  // namespace
}  // namespace mmha

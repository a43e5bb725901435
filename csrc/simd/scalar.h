// No instruction set assumed: four floats in a struct and plain loops, which any compiler turns into what the
// machine has. Multiply and add round separately (there may be no fused instruction).
#pragma once
#include <stdint.h>
#include <string.h>

#include "../attention.h"

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
struct Ints {
  uint32_t u[kLanes];
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

MMHA_INLINE float from_bits(uint32_t u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}
MMHA_INLINE uint32_t to_bits(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}

// 16-bit numbers in memory, float32 in registers; stores round to nearest, ties to even.
MMHA_INLINE float widen(bf16 x) { return from_bits((uint32_t)x.bits << 16); }
MMHA_INLINE float widen(f16 x) {
  const uint32_t sign = (uint32_t)(x.bits & 0x8000) << 16, rest = x.bits & 0x7fff;
  if (rest >= 0x7c00) return from_bits(sign | 0x7f800000 | rest << 13 | (rest > 0x7c00 ? 0x400000 : 0));
  if (rest >= 0x0400) return from_bits(sign | ((rest << 13) + (112u << 23)));
  return from_bits(sign | to_bits((float)rest * 5.9604644775390625e-08f));  // a multiple of 2^-24
}
MMHA_INLINE float widen(int8_t x) { return (float)x; }
MMHA_INLINE void narrow(bf16* to, float f) {
  const uint32_t u = to_bits(f);
  to->bits = (uint16_t)(f == f ? (u + 0x7fff + (u >> 16 & 1)) >> 16 : u >> 16 | 0x40);
}
MMHA_INLINE void narrow(f16* to, float f) {
  const uint32_t u = to_bits(f), sign = u >> 16 & 0x8000, rest = u & 0x7fffffff;
  uint32_t r;
  if (rest > 0x7f800000) r = 0x7e00 | (rest >> 13 & 0x3ff);
  else if (rest >= 0x477ff000) r = 0x7c00;  // 65520 and more round to infinity
  else if (rest >= 0x38800000) r = ((rest - (112u << 23)) + 0xfff + (rest >> 13 & 1)) >> 13;
  else r = to_bits(from_bits(rest) + 0.5f) - to_bits(0.5f);  // 0.5 + x rounds x to a multiple of 2^-24
  to->bits = (uint16_t)(sign | r);
}
template <class E>
MMHA_INLINE Vec load(const E* p) {
  MMHA_LANES(widen(p[i]));
}
template <class E>
MMHA_INLINE void store(E* p, Vec v) {
  for (int i = 0; i < kLanes; i++) narrow(p + i, v.f[i]);
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
MMHA_INLINE Mask less(Vec a, Vec b) {
  Mask m;
  for (int i = 0; i < kLanes; i++) m.b[i] = a.f[i] < b.f[i];
  return m;
}
MMHA_INLINE uint32_t bits_of(Mask m) {
  uint32_t bits = 0;
  for (int i = 0; i < kLanes; i++) bits |= (uint32_t)m.b[i] << i;
  return bits;
}
MMHA_INLINE bool any_differs(Vec a, Vec b) {
  bool any = false;
  for (int i = 0; i < kLanes; i++) any |= !(a.f[i] == b.f[i]);
  return any;
}

#define MMHA_INTS(expression)                             \
  Ints r;                                                 \
  for (int i = 0; i < kLanes; i++) r.u[i] = (expression); \
  return r

MMHA_INLINE Ints iset1(uint32_t x) { MMHA_INTS(x); }
MMHA_INLINE Ints iload(const uint32_t* p) { MMHA_INTS(p[i]); }
MMHA_INLINE Ints ixor(Ints a, Ints b) { MMHA_INTS(a.u[i] ^ b.u[i]); }
MMHA_INLINE Ints iadd(Ints a, Ints b) { MMHA_INTS(a.u[i] + b.u[i]); }
MMHA_INLINE Ints imul(Ints a, Ints b) { MMHA_INTS(a.u[i] * b.u[i]); }
template <int N>
MMHA_INLINE Ints ishr(Ints a) {
  MMHA_INTS(a.u[i] >> N);
}
// a < b, unsigned.
MMHA_INLINE Mask below(Ints a, Ints b) {
  Mask m;
  for (int i = 0; i < kLanes; i++) m.b[i] = a.u[i] < b.u[i];
  return m;
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
  MMHA_LANES(from_bits(to_bits(x.f[i]) + ((uint32_t)s.exponent[i] << 23)));
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
#undef MMHA_INTS
}  // namespace
}  // namespace mmha

#include "part.h"

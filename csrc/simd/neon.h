// AArch64 NEON: 4 lanes, 32 registers. 6 rows x 4 vectors use 24 accumulators.
#pragma once
#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#include "../attention.h"

namespace mmha {
namespace {

constexpr int kLanes = 4;
constexpr int kPanelVectors = 4;
constexpr int kKeyRows = 6;
constexpr int kValueRows = 6;
constexpr int kGemmVectors = 4;
constexpr int kGemmRows = 6;

using Vec = float32x4_t;
using Mask = uint32x4_t;
using Ints = uint32x4_t;

#define MMHA_INLINE static inline __attribute__((always_inline))

MMHA_INLINE Vec zero() { return vdupq_n_f32(0.0f); }
MMHA_INLINE Vec set1(float x) { return vdupq_n_f32(x); }
MMHA_INLINE Vec load(const float* p) { return vld1q_f32(p); }
MMHA_INLINE void store(float* p, Vec v) { vst1q_f32(p, v); }

// 16-bit numbers in memory, float32 in registers; stores round to nearest, ties to even.
MMHA_INLINE Vec load(const bf16* p) {
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p)), 16));
}
MMHA_INLINE Vec load(const f16* p) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p))));
}
MMHA_INLINE Vec load(const int8_t* p) {
  int32_t bytes;
  memcpy(&bytes, p, sizeof bytes);
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8((uint32_t)bytes)))));
}
MMHA_INLINE void store(bf16* p, Vec v) {
  const uint32x4_t x = vreinterpretq_u32_f32(v), high = vshrq_n_u32(x, 16);
  const uint32x4_t half = vaddq_u32(vandq_u32(high, vdupq_n_u32(1)), vdupq_n_u32(0x7fff));
  const uint32x4_t rounded = vshrq_n_u32(vaddq_u32(x, half), 16);
  const uint32x4_t r = vbslq_u32(vceqq_f32(v, v), rounded, vorrq_u32(high, vdupq_n_u32(0x40)));
  vst1_u16(reinterpret_cast<uint16_t*>(p), vmovn_u32(r));
}
MMHA_INLINE void store(f16* p, Vec v) {
  vst1_u16(reinterpret_cast<uint16_t*>(p), vreinterpret_u16_f16(vcvt_f16_f32(v)));
}

MMHA_INLINE Vec add(Vec a, Vec b) { return vaddq_f32(a, b); }
MMHA_INLINE Vec sub(Vec a, Vec b) { return vsubq_f32(a, b); }
MMHA_INLINE Vec mul(Vec a, Vec b) { return vmulq_f32(a, b); }
MMHA_INLINE Vec div(Vec a, Vec b) { return vdivq_f32(a, b); }
MMHA_INLINE Vec fma(Vec a, Vec b, Vec c) { return vfmaq_f32(c, a, b); }
// The second operand where either is NaN, as on x86.
MMHA_INLINE Vec max(Vec a, Vec b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }

MMHA_INLINE Mask lane_mask(uint32_t bits) {
  const uint32x4_t lane = {1, 2, 4, 8};
  return vtstq_u32(vdupq_n_u32(bits), lane);
}
MMHA_INLINE Vec select(Mask m, Vec yes, Vec no) { return vbslq_f32(m, yes, no); }
MMHA_INLINE Mask equal(Vec a, Vec b) { return vceqq_f32(a, b); }
// x, or 0 where x_exponent < bound; a NaN exponent keeps x.
MMHA_INLINE Vec zero_below(Vec x, Vec exponent, Vec bound) {
  return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(x), vcltq_f32(exponent, bound)));
}
MMHA_INLINE Mask less(Vec a, Vec b) { return vcltq_f32(a, b); }
MMHA_INLINE uint32_t bits_of(Mask m) {
  const uint32x4_t lane = {1, 2, 4, 8};
  return vaddvq_u32(vandq_u32(m, lane));
}
MMHA_INLINE bool any_differs(Vec a, Vec b) { return vminvq_u32(vceqq_f32(a, b)) == 0; }

MMHA_INLINE Ints iset1(uint32_t x) { return vdupq_n_u32(x); }
MMHA_INLINE Ints iload(const uint32_t* p) { return vld1q_u32(p); }
MMHA_INLINE Ints ixor(Ints a, Ints b) { return veorq_u32(a, b); }
MMHA_INLINE Ints iadd(Ints a, Ints b) { return vaddq_u32(a, b); }
MMHA_INLINE Ints imul(Ints a, Ints b) { return vmulq_u32(a, b); }
template <int N>
MMHA_INLINE Ints ishr(Ints a) {
  return vshrq_n_u32(a, N);
}
// a < b, unsigned.
MMHA_INLINE Mask below(Ints a, Ints b) { return vcltq_u32(a, b); }

struct Split {
  Vec fraction;
  int32x4_t exponent;
};
MMHA_INLINE Split split_exponent(Vec x) {
  const int32x4_t n = vcvtnq_s32_f32(x);
  return {vsubq_f32(x, vcvtq_f32_s32(n)), n};
}
MMHA_INLINE Vec scale_by_exponent(Vec x, Split s) {
  return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(x), vshlq_n_s32(s.exponent, 23)));
}

MMHA_INLINE float sum_lanes(Vec v) { return vaddvq_f32(v); }

// 4 x 4 in registers.
MMHA_INLINE void transpose(Vec* r) {
  const float32x4x2_t a = vtrnq_f32(r[0], r[1]), b = vtrnq_f32(r[2], r[3]);
  r[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
  r[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
  r[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
  r[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

}  // namespace
}  // namespace mmha

#include "part.h"

// AVX-512F: 16 lanes, 32 registers. 14 keys x 2 vectors use 28 accumulators; the broadcast is folded into the FMA.
#pragma once
#ifdef MMHA_EMULATE_AVX512  // the tests on a machine without it (tests/native/run.sh)
#include "../../tests/native/avx512_emulated.h"
#else
#include <immintrin.h>
#endif
#include <stdint.h>

namespace mmha {
namespace {

constexpr int kLanes = 16;
constexpr int kPanelVectors = 2;
constexpr int kKeyRows = 14;
constexpr int kValueRows = 13;
constexpr int kGemmVectors = 4;
constexpr int kGemmRows = 6;

using Vec = __m512;
using Mask = __mmask16;

#define MMHA_INLINE static inline __attribute__((always_inline))

MMHA_INLINE Vec zero() { return _mm512_setzero_ps(); }
MMHA_INLINE Vec set1(float x) { return _mm512_set1_ps(x); }
MMHA_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
MMHA_INLINE void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
MMHA_INLINE Mask first_lanes(int n) { return (Mask)((1u << n) - 1u); }
MMHA_INLINE Vec load_part(const float* p, int n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
MMHA_INLINE void store_part(float* p, Vec v, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
MMHA_INLINE Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
MMHA_INLINE Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
MMHA_INLINE Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
MMHA_INLINE Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
MMHA_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
// The second operand where either is NaN.
MMHA_INLINE Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }

MMHA_INLINE Mask lane_mask(uint32_t bits) { return (Mask)bits; }
MMHA_INLINE Vec select(Mask m, Vec yes, Vec no) { return _mm512_mask_blend_ps(m, no, yes); }
MMHA_INLINE Mask equal(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
// x, or 0 where x_exponent < bound; a NaN exponent keeps x.
MMHA_INLINE Vec zero_below(Vec x, Vec exponent, Vec bound) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(exponent, bound, _CMP_NLT_UQ), x);
}
MMHA_INLINE bool any_differs(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ) != 0; }

struct Split {
  Vec fraction;
  __m512i exponent;
};
MMHA_INLINE Split split_exponent(Vec x) {
  const __m512i n = _mm512_cvtps_epi32(x);
  return {_mm512_sub_ps(x, _mm512_cvtepi32_ps(n)), n};
}
MMHA_INLINE Vec scale_by_exponent(Vec x, Split s) {
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), _mm512_slli_epi32(s.exponent, 23)));
}

MMHA_INLINE float sum_lanes(Vec v) {
  float t[16];
  store(t, v);
  for (int n = 8; n > 0; n /= 2)
    for (int i = 0; i < n; i++) t[i] += t[i + n];
  return t[0];
}

// 16 x 16 in registers.
MMHA_INLINE void transpose(Vec* r) {
  Vec t[16], u[16];
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; i++) {
    u[4 * i] = _mm512_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    u[4 * i + 1] = _mm512_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
    u[4 * i + 2] = _mm512_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    u[4 * i + 3] = _mm512_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
  }
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_f32x4(u[i], u[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_f32x4(u[i], u[4 + i], 0xdd);
    t[8 + i] = _mm512_shuffle_f32x4(u[8 + i], u[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_f32x4(u[8 + i], u[12 + i], 0xdd);
  }
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0x88);
    r[8 + i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0xdd);
    r[4 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0x88);
    r[12 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0xdd);
  }
}

}  // namespace
}  // namespace mmha

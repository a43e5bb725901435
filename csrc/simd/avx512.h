// AVX-512F: 16 lanes, 32 registers. 14 keys x 2 vectors use 28 accumulators; the broadcast is folded into the FMA.
#pragma once
#ifdef MMHA_EMULATE_AVX512  // the tests on a machine without it (tests/native/run.sh)
#include "../../tests/native/avx512_emulated.h"
#else
#include <immintrin.h>
#endif
#include <stdint.h>

#include "../attention.h"

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
using Ints = __m512i;

#define MMHA_INLINE static inline __attribute__((always_inline))

MMHA_INLINE Vec zero() { return _mm512_setzero_ps(); }
MMHA_INLINE Vec set1(float x) { return _mm512_set1_ps(x); }
MMHA_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
MMHA_INLINE void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
MMHA_INLINE Mask first_lanes(int n) { return (Mask)((1u << n) - 1u); }
MMHA_INLINE Vec load_part(const float* p, int n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
MMHA_INLINE void store_part(float* p, Vec v, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }

// 16-bit numbers in memory, float32 in registers; stores round to nearest, ties to even.
MMHA_INLINE Ints widen(__m256i x) { return _mm512_cvtepu16_epi32(x); }
MMHA_INLINE __m256i load16(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
MMHA_INLINE __m256i load16_part(const void* p, int n) { return _mm256_maskz_loadu_epi16(first_lanes(n), p); }
MMHA_INLINE Vec from_bf16(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(widen(x), 16)); }
MMHA_INLINE __m256i to_bf16(Vec v) {
  const __m512i x = _mm512_castps_si512(v), high = _mm512_srli_epi32(x, 16);
  const __m512i half = _mm512_add_epi32(_mm512_and_si512(high, _mm512_set1_epi32(1)), _mm512_set1_epi32(0x7fff));
  const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(x, half), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_NEQ_UQ);
  return _mm512_cvtepi32_epi16(_mm512_mask_blend_epi32(nan, rounded, _mm512_or_si512(high, _mm512_set1_epi32(0x40))));
}
MMHA_INLINE Vec load(const bf16* p) { return from_bf16(load16(p)); }
MMHA_INLINE Vec load(const f16* p) { return _mm512_cvtph_ps(load16(p)); }
MMHA_INLINE Vec load(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
MMHA_INLINE Vec load_part(const int8_t* p, int n) {
  int8_t t[kLanes] = {};
  for (int i = 0; i < n; i++) t[i] = p[i];
  return load(t);
}
MMHA_INLINE Vec load_part(const bf16* p, int n) { return from_bf16(load16_part(p, n)); }
MMHA_INLINE Vec load_part(const f16* p, int n) { return _mm512_cvtph_ps(load16_part(p, n)); }
MMHA_INLINE __m256i narrow(const bf16*, Vec v) { return to_bf16(v); }
MMHA_INLINE __m256i narrow(const f16*, Vec v) { return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
template <class E>
MMHA_INLINE void store(E* p, Vec v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(p, v));
}
template <class E>
MMHA_INLINE void store_part(E* p, Vec v, int n) {
  _mm256_mask_storeu_epi16(p, first_lanes(n), narrow(p, v));
}

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
MMHA_INLINE Mask less(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
MMHA_INLINE uint32_t bits_of(Mask m) { return m; }
MMHA_INLINE bool any_differs(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ) != 0; }

MMHA_INLINE Ints iset1(uint32_t x) { return _mm512_set1_epi32((int)x); }
MMHA_INLINE Ints iload(const uint32_t* p) { return _mm512_loadu_si512(p); }
MMHA_INLINE Ints ixor(Ints a, Ints b) { return _mm512_xor_si512(a, b); }
MMHA_INLINE Ints iadd(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
MMHA_INLINE Ints imul(Ints a, Ints b) { return _mm512_mullo_epi32(a, b); }
template <int N>
MMHA_INLINE Ints ishr(Ints a) {
  return _mm512_srli_epi32(a, N);
}
// a < b, unsigned.
MMHA_INLINE Mask below(Ints a, Ints b) { return _mm512_cmplt_epu32_mask(a, b); }

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

#ifdef MMHA_BF16_PAIRS
// AVX-512-BF16: a lane holds two bfloat16 numbers, and one instruction adds both products to a float32.
MMHA_INLINE Vec dot_pairs(Vec sum, Ints a, Ints b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
// Lane n: low[n] in the low half, high[n] in the high one, rounded to nearest even.
MMHA_INLINE Ints round_to_pairs(Vec low, Vec high) {
  alignas(64) static const uint16_t kInterleave[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_loadu_si512(kInterleave), (__m512i)_mm512_cvtne2ps_pbh(high, low));
}
// Lane n: low[n] | high[n] << 16.
MMHA_INLINE Ints zip_pairs(__m256i low, __m256i high) {
  return _mm512_or_si512(widen(low), _mm512_slli_epi32(widen(high), 16));
}
MMHA_INLINE void istore(uint32_t* p, Ints x) { _mm512_storeu_si512(p, x); }
#endif

}  // namespace
}  // namespace mmha

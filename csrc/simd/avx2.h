// AVX2 + FMA + F16C: 8 lanes, 16 registers. Register tiles of 6 rows x 2 vectors use 12 accumulators, 2 operands, 1
// broadcast.
#pragma once
#include <immintrin.h>
#include <stdint.h>

#include "../attention.h"

namespace mmha {
namespace {

constexpr int kLanes = 8;
constexpr int kPanelVectors = 2;
constexpr int kKeyRows = 6;
constexpr int kValueRows = 6;
constexpr int kGemmVectors = 2;
constexpr int kGemmRows = 6;

using Vec = __m256;
using Mask = __m256i;
using Ints = __m256i;

#define MMHA_INLINE static inline __attribute__((always_inline))

MMHA_INLINE Vec zero() { return _mm256_setzero_ps(); }
MMHA_INLINE Vec set1(float x) { return _mm256_set1_ps(x); }
MMHA_INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
MMHA_INLINE void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
MMHA_INLINE __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
MMHA_INLINE Vec load_part(const float* p, int n) { return _mm256_maskload_ps(p, first_lanes(n)); }
MMHA_INLINE void store_part(float* p, Vec v, int n) { _mm256_maskstore_ps(p, first_lanes(n), v); }

// 16-bit numbers in memory, float32 in registers; stores round to nearest, ties to even.
MMHA_INLINE Vec load(const bf16* p) {
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
MMHA_INLINE Vec load(const f16* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
MMHA_INLINE Vec load(const int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
MMHA_INLINE void store(bf16* p, Vec v) {
  const __m256i x = _mm256_castps_si256(v), high = _mm256_srli_epi32(x, 16);
  const __m256i half = _mm256_add_epi32(_mm256_and_si256(high, _mm256_set1_epi32(1)), _mm256_set1_epi32(0x7fff));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(x, half), 16);
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i r = _mm256_blendv_epi8(rounded, _mm256_or_si256(high, _mm256_set1_epi32(0x40)), nan);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(r, r), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}
MMHA_INLINE void store(f16* p, Vec v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

MMHA_INLINE Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
MMHA_INLINE Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
MMHA_INLINE Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
MMHA_INLINE Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
MMHA_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
// The second operand where either is NaN.
MMHA_INLINE Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }

MMHA_INLINE Mask lane_mask(uint32_t bits) {
  const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), lane), lane);
}
MMHA_INLINE Vec select(Mask m, Vec yes, Vec no) { return _mm256_blendv_ps(no, yes, _mm256_castsi256_ps(m)); }
MMHA_INLINE Mask equal(Vec a, Vec b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)); }
// x, or 0 where x_exponent < bound; a NaN exponent keeps x.
MMHA_INLINE Vec zero_below(Vec x, Vec exponent, Vec bound) {
  return _mm256_and_ps(x, _mm256_cmp_ps(exponent, bound, _CMP_NLT_UQ));
}
MMHA_INLINE Mask less(Vec a, Vec b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
MMHA_INLINE uint32_t bits_of(Mask m) { return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(m)); }
MMHA_INLINE bool any_differs(Vec a, Vec b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NEQ_UQ)) != 0; }

MMHA_INLINE Ints iset1(uint32_t x) { return _mm256_set1_epi32((int)x); }
MMHA_INLINE Ints iload(const uint32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
MMHA_INLINE Ints ixor(Ints a, Ints b) { return _mm256_xor_si256(a, b); }
MMHA_INLINE Ints iadd(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
MMHA_INLINE Ints imul(Ints a, Ints b) { return _mm256_mullo_epi32(a, b); }
template <int N>
MMHA_INLINE Ints ishr(Ints a) {
  return _mm256_srli_epi32(a, N);
}
// a < b, unsigned.
MMHA_INLINE Mask below(Ints a, Ints b) {
  const __m256i top = _mm256_set1_epi32(INT32_MIN);
  return _mm256_cmpgt_epi32(_mm256_xor_si256(b, top), _mm256_xor_si256(a, top));
}

struct Split {
  Vec fraction;
  __m256i exponent;
};
MMHA_INLINE Split split_exponent(Vec x) {
  const __m256i n = _mm256_cvtps_epi32(x);
  return {_mm256_sub_ps(x, _mm256_cvtepi32_ps(n)), n};
}
MMHA_INLINE Vec scale_by_exponent(Vec x, Split s) {
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), _mm256_slli_epi32(s.exponent, 23)));
}

MMHA_INLINE float sum_lanes(Vec v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

// 8 x 8 in registers.
MMHA_INLINE void transpose(Vec* r) {
  Vec t[8], u[8];
  for (int i = 0; i < 4; i++) {
    t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 2; i++) {
    u[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    u[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
    u[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    u[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
  }
  for (int i = 0; i < 4; i++) {
    r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
    r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
  }
}

}  // namespace
}  // namespace mmha

#include "part.h"

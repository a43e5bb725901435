// The AVX-512 intrinsics that csrc/simd/avx512.h uses, written out from Intel's description of each, lane by lane: so
// that the AVX-512 bodies run, slowly, on a machine without AVX-512.
#pragma once
#include <stdint.h>
#include <string.h>

struct __m512 {
  float f[16];
};
struct __m512i {
  int32_t i[16];
};
typedef uint16_t __mmask16;
enum { _CMP_EQ_OQ, _CMP_NEQ_UQ, _CMP_NLT_UQ };

#define EMULATED static inline
#define EACH(type, member, expression)                     \
  type r;                                                  \
  for (int n = 0; n < 16; n++) r.member[n] = (expression); \
  return r

EMULATED __m512 _mm512_setzero_ps() { EACH(__m512, f, 0.0f); }
EMULATED __m512 _mm512_set1_ps(float x) { EACH(__m512, f, x); }
EMULATED __m512 _mm512_loadu_ps(const float* p) { EACH(__m512, f, p[n]); }
EMULATED void _mm512_storeu_ps(float* p, __m512 v) { memcpy(p, v.f, sizeof v); }
EMULATED __m512 _mm512_maskz_loadu_ps(__mmask16 m, const float* p) { EACH(__m512, f, m >> n & 1 ? p[n] : 0.0f); }
EMULATED void _mm512_mask_storeu_ps(float* p, __mmask16 m, __m512 v) {
  for (int n = 0; n < 16; n++)
    if (m >> n & 1) p[n] = v.f[n];
}
EMULATED __m512 _mm512_add_ps(__m512 a, __m512 b) { EACH(__m512, f, a.f[n] + b.f[n]); }
EMULATED __m512 _mm512_sub_ps(__m512 a, __m512 b) { EACH(__m512, f, a.f[n] - b.f[n]); }
EMULATED __m512 _mm512_mul_ps(__m512 a, __m512 b) { EACH(__m512, f, a.f[n] * b.f[n]); }
EMULATED __m512 _mm512_div_ps(__m512 a, __m512 b) { EACH(__m512, f, a.f[n] / b.f[n]); }
EMULATED __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
  EACH(__m512, f, __builtin_fmaf(a.f[n], b.f[n], c.f[n]));
}
EMULATED __m512 _mm512_max_ps(__m512 a, __m512 b) { EACH(__m512, f, a.f[n] > b.f[n] ? a.f[n] : b.f[n]); }
EMULATED __m512 _mm512_mask_blend_ps(__mmask16 m, __m512 a, __m512 b) { EACH(__m512, f, m >> n & 1 ? b.f[n] : a.f[n]); }
EMULATED __m512 _mm512_maskz_mov_ps(__mmask16 m, __m512 a) { EACH(__m512, f, m >> n & 1 ? a.f[n] : 0.0f); }
EMULATED __mmask16 _mm512_cmp_ps_mask(__m512 a, __m512 b, int how) {
  uint32_t m = 0;
  for (int n = 0; n < 16; n++) {
    const float x = a.f[n], y = b.f[n];
    m |= (uint32_t)(how == _CMP_EQ_OQ ? x == y : how == _CMP_NEQ_UQ ? !(x == y) : !(x < y)) << n;
  }
  return (__mmask16)m;
}
EMULATED int32_t emulated_round(float x) {
  return x > -2147483648.0f && x < 2147483648.0f ? (int32_t)__builtin_rintf(x) : INT32_MIN;
}
EMULATED __m512i _mm512_cvtps_epi32(__m512 a) { EACH(__m512i, i, emulated_round(a.f[n])); }
EMULATED __m512 _mm512_cvtepi32_ps(__m512i a) { EACH(__m512, f, (float)a.i[n]); }
EMULATED __m512i _mm512_add_epi32(__m512i a, __m512i b) {
  EACH(__m512i, i, (int32_t)((uint32_t)a.i[n] + (uint32_t)b.i[n]));
}
EMULATED __m512i _mm512_slli_epi32(__m512i a, unsigned by) { EACH(__m512i, i, (int32_t)((uint32_t)a.i[n] << by)); }
EMULATED __m512 _mm512_castsi512_ps(__m512i a) {
  __m512 r;
  memcpy(&r, &a, sizeof r);
  return r;
}
EMULATED __m512i _mm512_castps_si512(__m512 a) {
  __m512i r;
  memcpy(&r, &a, sizeof r);
  return r;
}
// Within each group of four: the low (or high) pairs of a and b, interleaved.
EMULATED __m512 _mm512_unpacklo_ps(__m512 a, __m512 b) { EACH(__m512, f, (n % 2 ? b : a).f[n / 4 * 4 + n % 4 / 2]); }
EMULATED __m512 _mm512_unpackhi_ps(__m512 a, __m512 b) {
  EACH(__m512, f, (n % 2 ? b : a).f[n / 4 * 4 + 2 + n % 4 / 2]);
}
// Within each group of four: two of a, then two of b, picked by two bits each.
EMULATED __m512 _mm512_shuffle_ps(__m512 a, __m512 b, int pick) {
  EACH(__m512, f, (n % 4 < 2 ? a : b).f[n / 4 * 4 + (pick >> 2 * (n % 4) & 3)]);
}
// Two groups of four of a, then two of b, picked by two bits each.
EMULATED __m512 _mm512_shuffle_f32x4(__m512 a, __m512 b, int pick) {
  EACH(__m512, f, (n < 8 ? a : b).f[(pick >> 2 * (n / 4) & 3) * 4 + n % 4]);
}

#undef EACH
#undef EMULATED

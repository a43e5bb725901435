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
struct __m128i {
  int8_t b[16];
};
struct __m256i {
  uint16_t h[16];
};
struct __m512bh {
  uint16_t h[32];
  __m512bh() = default;
  explicit __m512bh(__m512i x) { memcpy(h, &x, sizeof h); }
  explicit operator __m512i() const {
    __m512i x;
    memcpy(&x, h, sizeof h);
    return x;
  }
};
typedef uint16_t __mmask16;
enum { _CMP_EQ_OQ, _CMP_NEQ_UQ, _CMP_NLT_UQ, _CMP_LT_OQ };
enum { _MM_FROUND_TO_NEAREST_INT = 0 };

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
    m |= (uint32_t)(how == _CMP_EQ_OQ ? x == y : how == _CMP_NEQ_UQ ? !(x == y) : (x < y) == (how == _CMP_LT_OQ)) << n;
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

// Whole numbers, and 16-bit numbers in memory.
EMULATED __m512i _mm512_set1_epi32(int x) { EACH(__m512i, i, x); }
EMULATED __m512i _mm512_loadu_si512(const void* p) {
  __m512i r;
  memcpy(&r, p, sizeof r);
  return r;
}
EMULATED void _mm512_storeu_si512(void* p, __m512i x) { memcpy(p, &x, sizeof x); }
EMULATED __m512i _mm512_and_si512(__m512i a, __m512i b) { EACH(__m512i, i, a.i[n] & b.i[n]); }
EMULATED __m512i _mm512_or_si512(__m512i a, __m512i b) { EACH(__m512i, i, a.i[n] | b.i[n]); }
EMULATED __m512i _mm512_xor_si512(__m512i a, __m512i b) { EACH(__m512i, i, a.i[n] ^ b.i[n]); }
EMULATED __m512i _mm512_mullo_epi32(__m512i a, __m512i b) {
  EACH(__m512i, i, (int32_t)((uint32_t)a.i[n] * (uint32_t)b.i[n]));
}
EMULATED __m512i _mm512_srli_epi32(__m512i a, unsigned by) { EACH(__m512i, i, (int32_t)((uint32_t)a.i[n] >> by)); }
EMULATED __mmask16 _mm512_cmplt_epu32_mask(__m512i a, __m512i b) {
  uint32_t m = 0;
  for (int n = 0; n < 16; n++) m |= (uint32_t)((uint32_t)a.i[n] < (uint32_t)b.i[n]) << n;
  return (__mmask16)m;
}
EMULATED __m512i _mm512_mask_blend_epi32(__mmask16 m, __m512i a, __m512i b) {
  EACH(__m512i, i, m >> n & 1 ? b.i[n] : a.i[n]);
}
EMULATED __m256i _mm256_loadu_si256(const __m256i* p) {
  __m256i r;
  memcpy(&r, p, sizeof r);
  return r;
}
EMULATED void _mm256_storeu_si256(__m256i* p, __m256i x) { memcpy(p, &x, sizeof x); }
EMULATED __m256i _mm256_maskz_loadu_epi16(__mmask16 m, const void* p) {
  EACH(__m256i, h, m >> n & 1 ? static_cast<const uint16_t*>(p)[n] : 0);
}
EMULATED void _mm256_mask_storeu_epi16(void* p, __mmask16 m, __m256i x) {
  for (int n = 0; n < 16; n++)
    if (m >> n & 1) static_cast<uint16_t*>(p)[n] = x.h[n];
}
EMULATED __m512i _mm512_cvtepu16_epi32(__m256i a) { EACH(__m512i, i, a.h[n]); }
EMULATED __m128i _mm_loadu_si128(const __m128i* p) { return *p; }
EMULATED __m512i _mm512_cvtepi8_epi32(__m128i a) { EACH(__m512i, i, a.b[n]); }
EMULATED __m256i _mm512_cvtepi32_epi16(__m512i a) { EACH(__m256i, h, (uint16_t)a.i[n]); }
EMULATED uint32_t emulated_bits(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}
EMULATED float emulated_float(uint32_t u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}
// IEEE half precision by arithmetic: 11 digits, smallest step 2^-24.
EMULATED float emulated_from_half(uint16_t h) {
  const int exponent = h >> 10 & 31, digits = h & 1023;
  const double x = exponent == 31 ? (digits ? __builtin_nan("") : __builtin_inf())
                   : exponent     ? __builtin_ldexp(digits + 1024, exponent - 25)
                                  : __builtin_ldexp(digits, -24);
  return (float)(h & 0x8000 ? -x : x);
}
EMULATED uint16_t emulated_to_half(float f) {
  const uint16_t sign = emulated_bits(f) >> 16 & 0x8000;
  if (f != f) return sign | 0x7e00;
  const double x = __builtin_fabs((double)f);
  if (x >= 65520.0) return sign | 0x7c00;
  const int exponent = x < 6.103515625e-05 ? -14 : __builtin_ilogb(x);
  const int steps = (int)__builtin_rint(__builtin_ldexp(x, 10 - exponent));
  return sign | (uint16_t)((exponent + 14) * 1024 + steps);
}
EMULATED __m512 _mm512_cvtph_ps(__m256i a) { EACH(__m512, f, emulated_from_half(a.h[n])); }
EMULATED __m256i _mm512_cvtps_ph(__m512 a, int) { EACH(__m256i, h, emulated_to_half(a.f[n])); }

// AVX-512-BF16: denormal numbers count as 0; the odd product is added first.
EMULATED float emulated_bf16(uint16_t h) { return (h & 0x7f80) == 0 ? 0.0f : emulated_float((uint32_t)h << 16); }
EMULATED __m512 _mm512_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
  for (int n = 0; n < 16; n++)
    for (int half = 1; half >= 0; half--)
      sum.f[n] = __builtin_fmaf(emulated_bf16(a.h[2 * n + half]), emulated_bf16(b.h[2 * n + half]), sum.f[n]);
  return sum;
}
EMULATED uint16_t emulated_round_bf16(float f) {
  const uint32_t u = emulated_bits(f);
  if (f != f) return (uint16_t)(u >> 16 | 0x40);
  if ((u & 0x7f800000) == 0) return (uint16_t)(u >> 16 & 0x8000);
  return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
EMULATED __m512bh _mm512_cvtne2ps_pbh(__m512 high, __m512 low) {
  __m512bh r;
  for (int n = 0; n < 16; n++) {
    r.h[n] = emulated_round_bf16(low.f[n]);
    r.h[16 + n] = emulated_round_bf16(high.f[n]);
  }
  return r;
}
EMULATED __m512i _mm512_permutexvar_epi16(__m512i index, __m512i a) {
  uint16_t from[32], to[32], at[32];
  memcpy(from, &a, sizeof from);
  memcpy(at, &index, sizeof at);
  for (int n = 0; n < 32; n++) to[n] = from[at[n] & 31];
  __m512i r;
  memcpy(&r, to, sizeof r);
  return r;
}

#undef EACH
#undef EMULATED

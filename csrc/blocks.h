// The register-tiled building blocks shared by forward and backward. Include a simd/*.h first.
//
// Every block computes each of its numbers as one chain of fused multiply-adds in ascending order of the summed
// index, whatever the register tile; so a number does not depend on how its neighbours were grouped.
#pragma once
#include "attention.h"

namespace mmha {
namespace {

// Lanes that one register tile spans; a block of rows is a few panels of this width.
constexpr int kPanel = kLanes * kPanelVectors;

constexpr float kLog2e = 1.44269504088896341f;
constexpr float kLn2 = 0.693147180559945309f;

// 2^x for x <= 0 (and a little above) to 1e-7 relative: minimax of degree 5 on [-1/2, 1/2], exact at 0, so that
// an unchanged maximum rescales by exactly 1. Below 2^-126 the result is 0; NaN stays NaN.
MMHA_INLINE Vec exp2(Vec x) {
  const Split s = split_exponent(x);
  Vec p = set1(0.001326472731307149f);
  p = fma(p, s.fraction, set1(0.009671512991189957f));
  p = fma(p, s.fraction, set1(0.05550733581185341f));
  p = fma(p, s.fraction, set1(0.24022242426872253f));
  p = fma(p, s.fraction, set1(0.6931470036506653f));
  p = fma(p, s.fraction, set1(1.0f));
  return zero_below(scale_by_exponent(p, s), x, set1(-126.0f));
}

// Calls f(integral_constant-like tag) with R == n for n in 1..Most.
template <int R>
struct Rows {
  static constexpr int count = R;
};
template <int Most, class F>
MMHA_INLINE void with_rows(int n, F f) {
  if constexpr (Most > 0) {
    if (n == Most) f(Rows<Most>{});
    else with_rows<Most - 1>(n, f);
  }
}

// `panels` * kPanel rows of x (rows >= count are 0), times `factor`, to out[panel][width][kPanel].
static inline void pack_transposed(const float* x, int64_t stride, int64_t count, int64_t width, float factor,
                                   int panels, float* out) {
  const Vec f = set1(factor);
  for (int64_t row = 0; row < panels * kPanel; row += kLanes)
    for (int64_t d = 0; d < width; d += kLanes) {
      const int part = (int)(width - d < kLanes ? width - d : kLanes);
      Vec r[kLanes];
      for (int i = 0; i < kLanes; i++) {
        const float* p = x + (row + i) * stride + d;
        r[i] = row + i >= count ? zero() : mul(part == kLanes ? load(p) : load_part(p, part), f);
      }
      transpose(r);
      float* to = out + (row / kPanel * width + d) * kPanel + row % kPanel;
      for (int i = 0; i < part; i++) store(to + i * kPanel, r[i]);
    }
}

// The way back: columns of in[panel][width][kPanel], each lane times factor[lane], to rows of x.
static inline void unpack_transposed(const float* in, const float* factor, int64_t count, int64_t width, float* x,
                                     int64_t stride) {
  for (int64_t row = 0; row < count; row += kLanes)
    for (int64_t d = 0; d < width; d += kLanes) {
      const int part = (int)(width - d < kLanes ? width - d : kLanes);
      const float* from = in + (row / kPanel * width + d) * kPanel + row % kPanel;
      Vec r[kLanes];
      for (int i = 0; i < kLanes; i++) r[i] = i < part ? mul(load(from + i * kPanel), load(factor + row)) : zero();
      transpose(r);
      const int rows = (int)(count - row < kLanes ? count - row : kLanes);
      for (int i = 0; i < rows; i++) {
        float* p = x + (row + i) * stride + d;
        if (part == kLanes) store(p, r[i]);
        else store_part(p, r[i], part);
      }
    }
}

// out[r][lane] = sum_d keys[r][d] * packed[d][lane] for R keys and one panel of lanes. With Top, top[lane] becomes the
// maximum of itself and these.
template <int R, bool Top>
MMHA_INLINE void dot_tile(const float* keys, int64_t key_stride, const float* packed, int64_t width, float* out,
                          int64_t out_stride, float* top) {
  Vec acc[R][kPanelVectors];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; v++) acc[r][v] = zero();
  for (int64_t d = 0; d < width; d++) {
    Vec x[kPanelVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; v++) x[v] = load(packed + d * kPanel + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const Vec y = set1(keys[r * key_stride + d]);
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; v++) acc[r][v] = fma(y, x[v], acc[r][v]);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kPanelVectors; v++) {
    Vec m = Top ? load(top + v * kLanes) : zero();
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      store(out + r * out_stride + v * kLanes, acc[r][v]);
      if (Top) m = max(m, acc[r][v]);
    }
    if (Top) store(top + v * kLanes, m);
  }
}

// Where the numbers of a block of rows go: panel p, key j, at data + p * panel_stride + j * key_stride.
struct Lanes {
  float* data;
  int64_t key_stride, panel_stride;
};

// out[j][lane] for `count` keys and `panels` panels; packed is [panel][width][kPanel], top [panel][kPanel].
template <bool Top>
static inline void dot_keys(const float* keys, int64_t key_stride, int64_t count, const float* packed, int64_t width,
                            int panels, Lanes out, float* top) {
  for (int64_t j = 0; j < count; j += kKeyRows) {
    const int n = (int)(count - j < kKeyRows ? count - j : kKeyRows);
    with_rows<kKeyRows>(n, [&](auto rows) {
      for (int p = 0; p < panels; p++)
        dot_tile<decltype(rows)::count, Top>(keys + j * key_stride, key_stride, packed + p * width * kPanel, width,
                                             out.data + j * out.key_stride + p * out.panel_stride, out.key_stride,
                                             Top ? top + p * kPanel : nullptr);
    });
  }
}

// Whether `count` rows of `width` numbers are all finite.
static inline bool all_finite(const float* x, int64_t stride, int64_t count, int64_t width) {
  Vec sum = zero();
  for (int64_t i = 0; i < count; i++) {
    const float* p = x + i * stride;
    int64_t d = 0;
    for (; d + kLanes <= width; d += kLanes) sum = fma(load(p + d), zero(), sum);
    if (d < width) sum = fma(load_part(p + d, (int)(width - d)), zero(), sum);
  }
  return !any_differs(sum, zero());
}

}  // namespace
}  // namespace mmha

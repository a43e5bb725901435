// The register-tiled building blocks shared by forward and backward. Include a simd/*.h first.
//
// Every block computes each of its numbers as one chain of fused multiply-adds in ascending order of the summed
// index, whatever the register tile; so a number does not depend on how its neighbours were grouped.
//
// 16-bit inputs are widened to float32 a few rows at a time, into a buffer that stays in L1: a conversion per number
// and block of queries, against 64 multiply-adds. Where the CPU multiplies pairs of bfloat16 (pairs.h), they are not.
#pragma once
#include "attention.h"

namespace mmha {
namespace {

// Lanes that one register tile spans; a block of rows is a few panels of this width.
constexpr int kPanel = kLanes * kPanelVectors;

constexpr float kLog2e = 1.44269504088896341f;
constexpr float kLn2 = 0.693147180559945309f;

// Bytes that come from memory together.
constexpr int64_t kLine = 64;

// Asks for a line that will be read some microseconds later.
MMHA_INLINE void ask(const void* p) { __builtin_prefetch(p); }

template <class E>
constexpr bool kIsFloat = false;
template <>
constexpr bool kIsFloat<float> = true;

// Rows that are widened at a time, a multiple of every register tile of keys.
constexpr int kWideRows = 64 / kKeyRows * kKeyRows;

constexpr int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
// Floats of one widened row.
constexpr int64_t wide_width(int64_t width) { return round_up(width, 16); }

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

// The first number of row t of head h in row b of the batch.
template <class E>
static inline E* at(const Tensor& x, int64_t b, int64_t h, int64_t t = 0) {
  return static_cast<E*>(x.data) + b * x.stride_b + h * x.stride_h + t * x.stride_t;
}

// Rows of float32: where they are, or a widened copy.
struct RowView {
  const float* data;
  int64_t stride;
};
MMHA_INLINE RowView wide_rows(const float* x, int64_t stride, int64_t, int64_t, float*) { return {x, stride}; }
template <class E>
static inline RowView wide_rows(const E* x, int64_t stride, int64_t count, int64_t width, float* buffer) {
  const int64_t to = wide_width(width);
  for (int64_t i = 0; i < count; i++) {
    int64_t d = 0;
    for (; d + kLanes <= width; d += kLanes) store(buffer + i * to + d, load(x + i * stride + d));
    if (d < width) store(buffer + i * to + d, load_part(x + i * stride + d, (int)(width - d)));
  }
  return {buffer, to};
}

// `panels` * kPanel rows of x (rows >= count are 0), times `factor`, to out[panel][width][kPanel].
template <class E>
static inline void pack_transposed(const E* x, int64_t stride, int64_t count, int64_t width, float factor, int panels,
                                   float* out) {
  const Vec f = set1(factor);
  for (int64_t row = 0; row < panels * kPanel; row += kLanes)
    for (int64_t d = 0; d < width; d += kLanes) {
      const int part = (int)(width - d < kLanes ? width - d : kLanes);
      Vec r[kLanes];
      for (int i = 0; i < kLanes; i++) {
        const E* p = x + (row + i) * stride + d;
        r[i] = row + i >= count ? zero() : mul(part == kLanes ? load(p) : load_part(p, part), f);
      }
      transpose(r);
      float* to = out + (row / kPanel * width + d) * kPanel + row % kPanel;
      for (int i = 0; i < part; i++) store(to + i * kPanel, r[i]);
    }
}

// The way back: columns of in[panel][width][kPanel], each lane times factor[lane], to rows of x. `low`, unless nullptr,
// gets what rounding to E took away.
template <class E>
static inline void unpack_transposed(const float* in, const float* factor, int64_t count, int64_t width, E* x, E* low,
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
        const int64_t at = (row + i) * stride + d;
        if (part == kLanes) store(x + at, r[i]);
        else store_part(x + at, r[i], part);
        if (low) store_part(low + at, sub(r[i], load_part(x + at, part)), part);
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

  float* at(int lane, int64_t key) const {
    return data + lane / kPanel * panel_stride + key * key_stride + lane % kPanel;
  }
};

// One side of a product of keys and queries: the queries, packed.
struct Packed {
  const float* data;  // [panel][width][kPanel], times factor (as pairs: [panel][width / 2][kPanel], without it)
  int64_t width;
  int panels;
  float factor;
  float* wide;  // room for kWideRows widened rows
};

}  // namespace
}  // namespace mmha

#include "pairs.h"

namespace mmha {
namespace {

template <class E>
static inline void pack(const E* x, int64_t stride, int64_t count, const Packed& to, float* out) {
  if constexpr (kPairs<E>) pack_pairs(x, stride, count, to.width, to.panels, out);
  else pack_transposed(x, stride, count, to.width, to.factor, to.panels, out);
}

// Loops over register tiles stay functions of their own: inlined into a caller that holds vectors, GCC spills one.
#define MMHA_APART static __attribute__((noinline))

// out[j][lane] for `count` keys; top [panel][kPanel].
template <bool Top, class E>
MMHA_APART void dot_keys(const E* keys, int64_t key_stride, int64_t count, const Packed& x, Lanes out, float* top) {
  const int64_t group = kIsFloat<E> || kPairs<E> ? count : kWideRows;
  for (int64_t g = 0; g < count; g += group) {
    const int64_t stop = g + group < count ? g + group : count;
    RowView rows = {nullptr, 0};
    if constexpr (!kPairs<E>) rows = wide_rows(keys + g * key_stride, key_stride, stop - g, x.width, x.wide);
    for (int64_t j = g; j < stop; j += kKeyRows) {
      const int n = (int)(stop - j < kKeyRows ? stop - j : kKeyRows);
      with_rows<kKeyRows>(n, [&](auto tag) {
        constexpr int R = decltype(tag)::count;
        for (int p = 0; p < x.panels; p++) {
          float* to = out.data + j * out.key_stride + p * out.panel_stride;
          float* t = Top ? top + p * kPanel : nullptr;
          if constexpr (kPairs<E>)
            dot_pair_tile<R, Top>(keys + j * key_stride, key_stride, x, p, to, out.key_stride, t);
          else
            dot_tile<R, Top>(rows.data + (j - g) * rows.stride, rows.stride, x.data + p * x.width * kPanel, x.width, to,
                             out.key_stride, t);
        }
      });
    }
  }
}

// Whether `count` rows of `width` numbers are all finite.
template <class E>
static inline bool all_finite(const E* x, int64_t stride, int64_t count, int64_t width) {
  if constexpr (sizeof(E) == 1) return true;
  Vec sum = zero();
  for (int64_t i = 0; i < count; i++) {
    const E* p = x + i * stride;
    int64_t d = 0;
    for (; d + kLanes <= width; d += kLanes) sum = fma(load(p + d), zero(), sum);
    if (d < width) sum = fma(load_part(p + d, (int)(width - d)), zero(), sum);
  }
  return !any_differs(sum, zero());
}

}  // namespace
}  // namespace mmha

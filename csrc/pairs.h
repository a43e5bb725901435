// Products of bfloat16 pairs, for CPUs with an instruction that adds two of them to a float32 (AVX-512-BF16). Included
// by blocks.h; without MMHA_BF16_PAIRS all that is left is kPairs, which is false.
//
//   S[j, i] = sum over pairs of d    K is broadcast two numbers at a time where it is, Q is packed as pairs
//   O[d, i] = sum over pairs of j    V and P are packed as pairs of keys
//
// A pair of keys starts at an even position, wherever a tile or run starts, so that the order of sums is fixed by
// positions; a partner outside of the run counts as 0. The products of bfloat16 are exact and their sums float32; P is
// rounded to bfloat16. Backward uses pairs for S and dP only, whose inputs are bfloat16 as given.
#pragma once

namespace mmha {
namespace {

template <class E>
constexpr bool kPairs = false;

#ifdef MMHA_BF16_PAIRS
template <>
constexpr bool kPairs<bf16> = true;

MMHA_INLINE uint32_t pair_at(const bf16* p) {
  uint32_t pair;
  __builtin_memcpy(&pair, p, 4);
  return pair;
}

// `panels` * kPanel rows of x (rows >= count are 0) to out[panel][(width + 1) / 2][kPanel], a pair of columns a lane.
static inline void pack_pairs(const bf16* x, int64_t stride, int64_t count, int64_t width, int panels, float* out) {
  auto* to = reinterpret_cast<uint32_t*>(out);
  const int64_t pairs = (width + 1) / 2;
  for (int64_t row = 0; row < panels * kPanel; row++) {
    uint32_t* column = to + row / kPanel * pairs * kPanel + row % kPanel;
    for (int64_t d = 0; d < pairs; d++) {
      const bf16* p = x + row * stride + 2 * d;
      column[d * kPanel] = row >= count ? 0 : 2 * d + 1 < width ? pair_at(p) : p->bits;
    }
  }
}

template <int R, bool Top>
MMHA_INLINE void dot_pair_tile(const bf16* keys, int64_t key_stride, const Packed& x, int panel, float* out,
                               int64_t out_stride, float* top) {
  const int64_t pairs = (x.width + 1) / 2;
  const auto* packed = reinterpret_cast<const uint32_t*>(x.data) + panel * pairs * kPanel;
  Vec acc[R][kPanelVectors];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; v++) acc[r][v] = zero();
  for (int64_t d = 0; d < x.width / 2; d++) {
    Ints q[kPanelVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; v++) q[v] = iload(packed + d * kPanel + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const Ints k = iset1(pair_at(keys + r * key_stride + 2 * d));
#pragma GCC unroll 4
      for (int v = 0; v < kPanelVectors; v++) acc[r][v] = dot_pairs(acc[r][v], k, q[v]);
    }
  }
  if (x.width % 2)
    for (int r = 0; r < R; r++)
      for (int v = 0; v < kPanelVectors; v++)
        acc[r][v] = dot_pairs(acc[r][v], iset1(keys[r * key_stride + x.width - 1].bits),
                              iload(packed + (pairs - 1) * kPanel + v * kLanes));
  const Vec factor = set1(x.factor);
#pragma GCC unroll 4
  for (int v = 0; v < kPanelVectors; v++) {
    Vec m = Top ? load(top + v * kLanes) : zero();
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const Vec s = mul(acc[r][v], factor);
      store(out + r * out_stride + v * kLanes, s);
      if (Top) m = max(m, s);
    }
    if (Top) store(top + v * kLanes, m);
  }
}

// Probabilities of keys [first, last) of one panel, p[key][kPanel], rounded to pairs of keys: pair m of out[m][kPanel]
// holds keys 2m and 2m + 1. `odd` is 1 where key 0 of p stands at an odd position: then pair m holds 2m - 1 and 2m.
static inline void round_probabilities(const float* p, int64_t first, int64_t last, int64_t odd, uint32_t* out) {
  for (int64_t m = (first + odd) / 2; 2 * m - odd < last; m++)
    for (int v = 0; v < kPanelVectors; v++) {
      const int64_t low = 2 * m - odd, high = low + 1;
      istore(out + m * kPanel + v * kLanes,
             round_to_pairs(low >= first ? load(p + low * kPanel + v * kLanes) : zero(),
                            high < last ? load(p + high * kPanel + v * kLanes) : zero()));
    }
}

// One pair of rows of V, width numbers each, to out[width]; nullptr counts as a row of 0.
static inline void zip_rows(const bf16* low, const bf16* high, int64_t width, uint32_t* out) {
  for (int64_t d = 0; d < width; d += kLanes) {
    const int part = (int)(width - d < kLanes ? width - d : kLanes);
    const auto row = [&](const bf16* p) { return load16_part(p ? p + d : nullptr, p ? part : 0); };
    istore(out + d, zip_pairs(row(low), row(high)));
  }
}

// out[r][lane] = out[r][lane] * rescale[lane] + sum over `count` pairs of v[pair][r] * p[pair][lane], R columns of v.
template <int R>
MMHA_INLINE void value_pair_tile(const uint32_t* v, int64_t stride, const uint32_t* p, int64_t count,
                                 const float* rescale, float* out) {
  Vec acc[R][kPanelVectors];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int x = 0; x < kPanelVectors; x++)
      acc[r][x] = mul(load(out + r * kPanel + x * kLanes), load(rescale + x * kLanes));
  for (int64_t j = 0; j < count; j++) {
    Ints w[kPanelVectors];
#pragma GCC unroll 4
    for (int x = 0; x < kPanelVectors; x++) w[x] = iload(p + j * kPanel + x * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const Ints y = iset1(v[j * stride + r]);
#pragma GCC unroll 4
      for (int x = 0; x < kPanelVectors; x++) acc[r][x] = dot_pairs(acc[r][x], y, w[x]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int x = 0; x < kPanelVectors; x++) store(out + r * kPanel + x * kLanes, acc[r][x]);
}
#endif

}  // namespace
}  // namespace mmha

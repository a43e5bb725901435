// What stands between scale * q.k and the softmax (Extras, attention.h), tile by tile, from O(T) data.
//
// Scores are in units of log2(e), lanes are queries. A bias that depends on key - position alone (ALiBi, Relative) is
// one strip of rows + keys numbers a tile: key j reads its lanes as one unaligned vector. An additive tensor is read
// where it is and transposed in registers. Each costs one or two operations a vector, against D + Dv multiply-adds.
#pragma once
#include "random.h"
#include "tile.h"

namespace mmha {
namespace {

// A finite number that is added may be as low as float32 goes (finfo.min as a mask), and times log2(e) it would become
// -inf, which means hidden.
constexpr float kLowest = -3.4028234663852886e38f;

constexpr int kStripRoom = (kMostRows + kMostKeys + 63) / 16 * 16;

// A block of rows as Extras sees it.
struct Adjust {
  const Extras* x;  // nullptr: nothing to adjust
  int64_t b, h, row, count;
  int64_t position;  // of the block's first row
  RandomRows random;
  float strip[kStripRoom];

  void start(const Extras* extras, const Sizes& s, int64_t batch_row, int64_t head, int64_t first, int rows) {
    x = extras;
    if (!x) return;
    b = batch_row;
    h = head;
    row = first;
    count = min64(rows, s.q_len - first);
    position = (x->start ? x->start[b] : s.k_len - s.q_len) + row;
    if (x->threshold) random.start(x->seed, b, h, row, rows);
  }
  bool scores() const { return x && (x->softcap != 0.0f || x->slopes || x->table || x->additive_count); }
  bool drops() const { return x && x->threshold; }
};

// What the packed queries are multiplied with, so that scores need no further multiplication.
static inline float score_factor(const Extras* x, float scale) {
  return x && x->softcap != 0.0f ? scale / x->softcap : scale * kLog2e;
}

MMHA_INLINE Mask lanes_of(uint64_t rows, int lane) {
  return lane_mask((uint32_t)(rows >> lane) & ((1u << kLanes) - 1u));
}

// tanh to 1e-7 relative: an odd polynomial below 1/2, (1 - e) / (1 + e) with e = exp(-2|x|) above. NaN stays NaN.
MMHA_INLINE Vec tanh(Vec x) {
  const Vec y = mul(x, x), positive = max(sub(zero(), x), x);
  Vec p = set1(0.0172415f);
  p = fma(p, y, set1(-0.0530455f));
  p = fma(p, y, set1(0.13325879f));
  p = fma(p, y, set1(-0.33333144f));
  const Vec small = fma(mul(p, y), x, x);
  const Vec e = exp2(mul(positive, set1(-2.0f * kLog2e)));
  const Vec large = div(sub(set1(1.0f), e), add(set1(1.0f), e));
  return select(less(positive, set1(0.5f)), small, select(less(x, zero()), sub(zero(), large), large));
}

template <class F>
MMHA_INLINE void for_each_vector(const Tile& tile, int lanes, F f) {
  for (int lane = 0; lane < lanes; lane += kLanes)
    for (int r = 0; r < tile.runs; r++)
      for (int64_t j = tile.run[r].first; j < tile.run[r].last; j++) f(lane, j);
}

// x = softcap * tanh(x); `slope`, where wanted, becomes the derivative 1 - tanh(x)^2.
static inline void cap_scores(const Extras& extras, const Tile& tile, Lanes s, int lanes, float* slope) {
  const Vec cap = set1(extras.softcap * kLog2e), one = set1(1.0f), minus = set1(-1.0f);
  for_each_vector(tile, lanes, [&](int lane, int64_t j) {
    float* at = s.at(lane, j);
    const Vec t = tanh(load(at));
    store(at, mul(t, cap));
    if (slope) store(slope + (at - s.data), fma(mul(t, minus), t, one));
  });
}

// strip[keys - 1 - j + i] is what key j adds to row i: a function of key - position.
static inline void fill_strip(Adjust& a, const Tile& tile, int lanes) {
  const Extras& x = *a.x;
  const int64_t keys = tile.last - tile.first, most = x.table_width - 1;
  const float slope = x.slopes ? x.slopes[a.h] * kLog2e : 0.0f;
  const float* table = x.table ? x.table + a.h * x.table_stride : nullptr;
  for (int64_t u = 0; u < keys + lanes - 1; u++) {
    const int64_t distance = tile.first + keys - 1 - u - a.position;
    float add = x.slopes ? -slope * (float)(distance < 0 ? -distance : distance) : 0.0f;
    if (table) add += table[max64(0, min64(most / 2 + distance, most))] * kLog2e;
    a.strip[u] = add < kLowest ? kLowest : add > -kLowest ? -kLowest : add;
  }
}

// Numbers j .. j + n of one row of an additive tensor.
template <class E>
MMHA_INLINE Vec additive_row(const E* p, int64_t stride, int n) {
  if (stride == 1) return n == kLanes ? load(p) : load_part(p, n);
  E t[kLanes] = {};
  for (int i = 0; i < n; i++) t[i] = p[i * stride];
  return load(t);
}

// f(lane, j, x): x are the numbers that a tensor of scores holds for key j and the rows from `lane` on.
template <class E, class F>
static inline void read_numbers(const Additive& t, const Adjust& a, const Tile& tile, int lanes, F f) {
  const E* base = static_cast<const E*>(t.data) + a.b * t.stride_b + a.h * t.stride_h + a.row * t.stride_q;
  for (int lane = 0; lane < lanes; lane += kLanes) {
    const int live = (int)max64(0, min64(kLanes, a.count - lane));
    for (int r = 0; r < tile.runs; r++)
      for (int64_t j = tile.run[r].first; j < tile.run[r].last; j += kLanes) {
        const int n = (int)min64(kLanes, tile.run[r].last - j);
        const E* p = base + lane * t.stride_q + (tile.first + j) * t.stride_k;
        Vec x[kLanes];
        if (t.stride_q == 1) {  // transposed in memory: the lanes lie side by side
          for (int i = 0; i < n; i++) x[i] = additive_row(p + i * t.stride_k, 1, live);
        } else {
          for (int i = 0; i < kLanes; i++) x[i] = zero();
          for (int i = 0; i < live; i++)
            x[i] = i > 0 && t.stride_q == 0 ? x[0] : additive_row(p + i * t.stride_q, t.stride_k, n);
          transpose(x);
        }
        for (int i = 0; i < n; i++) f(lane, j + i, x[i]);
      }
  }
}
template <class F>
static inline void read_tensor(const Additive& t, const Adjust& a, const Tile& tile, int lanes, F f) {
  if (t.dtype == DType::kFloat32) read_numbers<float>(t, a, tile, lanes, f);
  else if (t.dtype == DType::kBfloat16) read_numbers<bf16>(t, a, tile, lanes, f);
  else read_numbers<f16>(t, a, tile, lanes, f);
}

// A pair whose additive is -inf becomes hidden, whatever q, k and the other additives hold there: the sum may be NaN.
static inline void add_tensor(const Additive& t, const Adjust& a, Tile& tile, Lanes s, int lanes) {
  const Vec log2e = set1(kLog2e), hidden = set1(-__builtin_inff());
  read_tensor(t, a, tile, lanes, [&](int lane, int64_t j, Vec x) {
    float* at = s.at(lane, j);
    store(at, max(set1(kLowest), fma(x, log2e, load(at))));
    tile.seen[j] &= ~((uint64_t)bits_of(equal(x, hidden)) << lane);
  });
}

// Everything that is added to the scores of the tile or bends them.
static inline void adjust_scores(Adjust& a, Tile& tile, Lanes s, int lanes, float* slope) {
  const Extras& x = *a.x;
  if (x.softcap != 0.0f) cap_scores(x, tile, s, lanes, slope);
  if (x.slopes || x.table) {
    fill_strip(a, tile, lanes);
    const float* last = a.strip + (tile.last - tile.first - 1);
    for_each_vector(tile, lanes, [&](int lane, int64_t j) {
      float* at = s.at(lane, j);
      store(at, add(load(at), load(last - j + lane)));
    });
  }
  if (!x.additive_count) return;
  tile.spell_out((int)a.count);
  for (int64_t n = 0; n < x.additive_count; n++) add_tensor(x.additives[n], a, tile, s, lanes);
}

}  // namespace
}  // namespace mmha

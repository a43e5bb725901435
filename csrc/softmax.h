// The online softmax of a block of rows, lane by lane: hide, take the maximum, exponentiate, and merge chunks.
#pragma once
#include "adjust.h"

namespace mmha {
namespace {

constexpr int kForwardPanels = kForwardRows / kPanel;

// What "rescale" is where O has been rescaled already.
const float kOnes[kForwardRows] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                   1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

// A softmax under way. Kept in one piece, so that a chunk can be put away and merged later.
struct Softmax {
  float* top;  // running maximum, log2 units
  float* sum;  // running sum of exponentials
  float* out;  // [panel][Dv][kPanel]

  void place(float* room) {
    top = room;
    sum = room + kForwardRows;
    out = room + 2 * kForwardRows;
  }
  void clear(int64_t value_dim) {
    for (int i = 0; i < kForwardRows; i++) {
      top[i] = -__builtin_inff();
      sum[i] = 0.0f;
    }
    for (int64_t i = 0; i < kForwardRows * value_dim; i++) out[i] = 0.0f;
  }
};

// What blocks of at most kLanes rows need on top (few.h).
struct Few {
  int rows;        // 0: the block is not one of these
  float* keys;     // [D][kPanel], keys as lanes
  float* scores;   // [kLanes][kFewStride]
  float* out;      // [kLanes][wide Dv], the chunk's output row by row
  float* weights;  // the tile's probabilities: row i, key j at i * weight_row + j * weight_key
  int64_t weight_row, weight_key;
};
// A last panel, or group of a cache, may reach beyond the tile.
constexpr int64_t kFewStride = kForwardKeys + (kPanel > 16 ? kPanel : 16);

struct ForwardState {
  Packed q;
  float* packed;
  float* p;         // [panel][kForwardKeys][kPanel], scores then probabilities
  float* wide;      // kWideRows widened rows of K or V; or pairs of V
  uint32_t* pairs;  // P as pairs of keys, where the CPU multiplies pairs
  Few few;
  Softmax chunk, total;
  Adjust adjust;
  float tile_top[kForwardRows];  // running maximum with this tile
  float rescale[kForwardRows];   // what the tile's new maximum makes of the old sums
};

template <class E>
static int64_t forward_scratch(const Sizes& s) {
  const int64_t widest = s.head_dim > s.value_dim ? s.head_dim : s.value_dim;
  return kForwardRows * (s.head_dim + 1 + kForwardKeys) + 2 * chunk_floats(s.value_dim) + 3 * kLanes +
         kPanel * s.head_dim + kLanes * (kFewStride + wide_width(widest)) +
         (kIsFloat<E> ? 0 : 64 * wide_width(widest)) + (kPairs<E> ? kForwardRows * (kForwardKeys / 2 + 1) : 0);
}

// Hides what is hidden (-inf) and takes the maximum of the rest, in the first NV vectors of a panel.
template <int NV = kPanelVectors>
static inline void hide_tile(const Tile& tile, int panel, ForwardState& st) {
  const Vec hidden = set1(-__builtin_inff());
  const int lane0 = panel * kPanel;
  Vec top[NV];
  for (int v = 0; v < NV; v++) top[v] = load(st.tile_top + lane0 + v * kLanes);
  for (int r = 0; r < tile.runs; r++)
    for (int64_t j = tile.run[r].first; j < tile.run[r].last; j++) {
      const bool mixed = tile.is_mixed(tile.first + j);
      for (int v = 0; v < NV; v++) {
        float* at = st.p + (panel * kForwardKeys + j) * kPanel + v * kLanes;
        Vec x = load(at);
        if (mixed) {
          x = select(lanes_of(tile.seen[j], lane0 + v * kLanes), x, hidden);
          store(at, x);
        }
        top[v] = max(top[v], x);
      }
    }
  for (int v = 0; v < NV; v++) store(st.tile_top + lane0 + v * kLanes, top[v]);
}

// Turns the tile's scores into probabilities against the new maximum; updates top, sum and rescale.
template <int NV = kPanelVectors>
static inline void softmax_tile(const Tile& tile, int panel, ForwardState& st) {
  const Vec hidden = set1(-__builtin_inff());
  float* s = st.p + panel * kForwardKeys * kPanel;
  const int lane0 = panel * kPanel;
  Vec top[NV], sum[NV];
  for (int v = 0; v < NV; v++) {
    const int lane = lane0 + v * kLanes;
    const Vec old = load(st.chunk.top + lane);
    top[v] = load(st.tile_top + lane);
    store(st.chunk.top + lane, top[v]);
    // A lane that has seen nothing yet has the maximum -inf: take 0 instead, exp2 then gives exactly 0.
    top[v] = select(equal(top[v], hidden), zero(), top[v]);
    const Vec c = exp2(sub(old, top[v]));
    store(st.rescale + lane, c);
    store(st.chunk.sum + lane, mul(load(st.chunk.sum + lane), c));
    sum[v] = zero();
  }
  for (int r = 0; r < tile.runs; r++)
    for (int64_t j = tile.run[r].first; j < tile.run[r].last; j++)
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) {
        float* at = s + j * kPanel + v * kLanes;
        const Vec p = exp2(sub(load(at), top[v]));
        sum[v] = add(sum[v], p);
        store(at, p);
      }
  for (int v = 0; v < NV; v++) {
    float* at = st.chunk.sum + lane0 + v * kLanes;
    store(at, add(load(at), sum[v]));
  }
}

// Sets dropped probabilities to 0; the factor 1 / (1 - dropout) waits for the end.
static inline void drop_tile(const Tile& tile, ForwardState& st) {
  const Ints threshold = iset1(st.adjust.x->threshold);
  for (int r = 0; r < tile.runs; r++)
    for (int64_t j = tile.run[r].first; j < tile.run[r].last; j++) {
      const uint64_t key = st.adjust.random.of_key(tile.first + j);
      for (int lane = 0; lane < st.q.panels * kPanel; lane += kLanes) {
        float* at = st.p + (lane / kPanel * kForwardKeys + j) * kPanel + lane % kPanel;
        store(at, select(below(random_bits(st.adjust.random, lane, key), threshold), zero(), load(at)));
      }
    }
}

// total = total and chunk together; the chunk starts anew. Exact where one of them has seen nothing.
static inline void merge_chunk(int64_t value_dim, int panels, ForwardState& st) {
  const Vec hidden = set1(-__builtin_inff());
  for (int lane = 0; lane < panels * kPanel; lane += kLanes) {
    const Vec old = load(st.total.top + lane), add_top = load(st.chunk.top + lane), top = max(old, add_top);
    store(st.total.top + lane, top);
    const Vec base = select(equal(top, hidden), zero(), top);
    const Vec keep = exp2(sub(old, base)), take = exp2(sub(add_top, base));
    store(st.total.sum + lane, fma(load(st.chunk.sum + lane), take, mul(load(st.total.sum + lane), keep)));
    const int64_t first = lane / kPanel * value_dim * kPanel + lane % kPanel;
    for (int64_t d = 0; d < value_dim; d++) {
      const int64_t at = first + d * kPanel;
      store(st.total.out + at, fma(load(st.chunk.out + at), take, mul(load(st.total.out + at), keep)));
    }
  }
  st.chunk.clear(value_dim);
}

}  // namespace
}  // namespace mmha

// Forward attention with the queries in the SIMD lanes.
//
//   S[j, i] = sum_d K[j, d] * Q[d, i]        lanes are queries i; K is only ever broadcast
//   softmax over j lane by lane              no horizontal reduction
//   O[d, i] = sum_j V[j, d] * P[j, i]        V is only ever broadcast
//
// So K and V need no packing, a tile may start at any key, any row stride works, and a mask is one bit per lane and
// key. Only Q and O are transposed, once per block of 32 queries.
//
// Memory: K and V tiles (256 keys) stream through L2 once per block; S (32 KB), Q and O (32 * D * 4 bytes each) stay
// in L1/L2. Per block and visited key: 32 * (D + Dv) FMAs.
//
// Order of sums, per query row: keys ascending inside a tile aligned to a multiple of 256; per tile the maximum is
// updated, then l and O are rescaled, then the tile is added key by key. A hidden key adds exactly nothing, so the
// result of a row depends neither on the rows it shares a block with nor on the thread or batch it runs in.
#pragma once
#include "blocks.h"
#include "tile.h"

namespace mmha {
namespace {

constexpr int kForwardPanels = kForwardRows / kPanel;

// What "rescale" is where O has been rescaled already.
const float kOnes[kForwardRows] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                   1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

struct ForwardState {
  float* q;                      // [panel][D][kPanel], times scale * log2(e)
  float* p;                      // [panel][kForwardKeys][kPanel], scores then probabilities
  float* out;                    // [panel][Dv][kPanel]
  float top[kForwardRows];       // running maximum
  float tile_top[kForwardRows];  // the same with this tile
  float sum[kForwardRows];       // running sum of exponentials
  float rescale[kForwardRows];   // what the tile's new maximum makes of the old sums
};

static int64_t forward_scratch(const Sizes& s) {
  return kForwardRows * (s.head_dim + s.value_dim + kForwardKeys) + 3 * kLanes;
}

MMHA_INLINE Mask lanes_of(uint64_t rows, int lane) {
  return lane_mask((uint32_t)(rows >> lane) & ((1u << kLanes) - 1u));
}

// Hides what is hidden (-inf) and takes the maximum of the rest.
static inline void hide_tile(const Tile& tile, int panel, ForwardState& st) {
  const Vec hidden = set1(-__builtin_inff());
  const int lane0 = panel * kPanel;
  Vec top[kPanelVectors];
  for (int v = 0; v < kPanelVectors; v++) top[v] = load(st.tile_top + lane0 + v * kLanes);
  for (int64_t j = 0; j < tile.last - tile.first; j++) {
    const int64_t key = tile.first + j;
    const bool mixed = key < tile.full_first || key >= tile.full_last;
    for (int v = 0; v < kPanelVectors; v++) {
      float* at = st.p + (panel * kForwardKeys + j) * kPanel + v * kLanes;
      Vec x = load(at);
      if (mixed) {
        x = select(lanes_of(tile.seen[j], lane0 + v * kLanes), x, hidden);
        store(at, x);
      }
      top[v] = max(top[v], x);
    }
  }
  for (int v = 0; v < kPanelVectors; v++) store(st.tile_top + lane0 + v * kLanes, top[v]);
}

// Turns the tile's scores into probabilities against the new maximum; updates top, sum and rescale.
static inline void softmax_tile(int64_t count, int panel, ForwardState& st) {
  const Vec hidden = set1(-__builtin_inff());
  float* s = st.p + panel * kForwardKeys * kPanel;
  const int lane0 = panel * kPanel;
  Vec top[kPanelVectors], sum[kPanelVectors];
  for (int v = 0; v < kPanelVectors; v++) {
    const int lane = lane0 + v * kLanes;
    const Vec old = load(st.top + lane);
    top[v] = load(st.tile_top + lane);
    store(st.top + lane, top[v]);
    // A lane that has seen nothing yet has the maximum -inf: take 0 instead, exp2 then gives exactly 0.
    top[v] = select(equal(top[v], hidden), zero(), top[v]);
    const Vec c = exp2(sub(old, top[v]));
    store(st.rescale + lane, c);
    store(st.sum + lane, mul(load(st.sum + lane), c));
    sum[v] = zero();
  }
  for (int64_t j = 0; j < count; j++)
#pragma GCC unroll 4
    for (int v = 0; v < kPanelVectors; v++) {
      float* at = s + j * kPanel + v * kLanes;
      const Vec p = exp2(sub(load(at), top[v]));
      sum[v] = add(sum[v], p);
      store(at, p);
    }
  for (int v = 0; v < kPanelVectors; v++) {
    float* at = st.sum + lane0 + v * kLanes;
    store(at, add(load(at), sum[v]));
  }
}

// out[r][lane] = out[r][lane] * rescale[lane] + sum_j v[j][r] * p[j][lane] for R columns of v and one panel.
template <int R>
MMHA_INLINE void value_tile(const float* v, int64_t stride, const float* p, int64_t count, const float* rescale,
                            float* out) {
  Vec acc[R][kPanelVectors];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int x = 0; x < kPanelVectors; x++)
      acc[r][x] = mul(load(out + r * kPanel + x * kLanes), load(rescale + x * kLanes));
  for (int64_t j = 0; j < count; j++) {
    Vec w[kPanelVectors];
#pragma GCC unroll 4
    for (int x = 0; x < kPanelVectors; x++) w[x] = load(p + j * kPanel + x * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const Vec y = set1(v[j * stride + r]);
#pragma GCC unroll 4
      for (int x = 0; x < kPanelVectors; x++) acc[r][x] = fma(y, w[x], acc[r][x]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int x = 0; x < kPanelVectors; x++) store(out + r * kPanel + x * kLanes, acc[r][x]);
}

// Keys that one pass over O's columns adds: their values, 64 rows of V, stay in L1 while every column group reads them.
// (A whole tile would not: rows of V stand 4 * Dv bytes apart, and a power of two uses few of the cache's sets.)
constexpr int64_t kValueChunk = 64;

// Adds keys [offset, offset + count) of the tile to O. `rescale` applies to what O holds already.
static inline void add_values(const float* v, int64_t stride, int64_t width, int64_t offset, int64_t count,
                              const float* rescale, ForwardState& st) {
  for (int64_t j = 0; j < count; j += kValueChunk) {
    const int64_t keys = min64(kValueChunk, count - j);
    for (int64_t d = 0; d < width; d += kValueRows) {
      const int n = (int)(width - d < kValueRows ? width - d : kValueRows);
      with_rows<kValueRows>(n, [&](auto rows) {
        for (int p = 0; p < kForwardPanels; p++)
          value_tile<decltype(rows)::count>(v + j * stride + d, stride, st.p + (p * kForwardKeys + offset + j) * kPanel,
                                            keys, (j == 0 ? rescale : kOnes) + p * kPanel,
                                            st.out + (p * width + d) * kPanel);
      });
    }
  }
}

// One key whose value is not finite: only the lanes that see it may touch it, for 0 * inf is NaN.
static inline void add_value_where_seen(const float* v, int64_t width, int64_t offset, uint64_t rows,
                                        const float* rescale, ForwardState& st) {
  for (int lane = 0; lane < kForwardRows; lane += kLanes) {
    const int64_t panel = lane / kPanel, in_panel = lane % kPanel;
    const Vec p = load(st.p + (panel * kForwardKeys + offset) * kPanel + in_panel);
    const Vec c = load(rescale + lane);
    for (int64_t d = 0; d < width; d++) {
      float* at = st.out + (panel * width + d) * kPanel + in_panel;
      const Vec old = mul(load(at), c);
      store(at, select(lanes_of(rows, lane), fma(set1(v[d]), p, old), old));
    }
  }
}

static inline void attend_tile(const ForwardArgs& a, const float* k, const float* v, const Tile& tile,
                               ForwardState& st) {
  const int64_t count = tile.last - tile.first, ks = a.k.stride_t, vs = a.v.stride_t;
  const Lanes scores = {st.p, kPanel, kForwardKeys * kPanel};
  for (int i = 0; i < kForwardRows; i++) st.tile_top[i] = st.top[i];
  if (tile.is_full()) {
    dot_keys<true>(k + tile.first * ks, ks, count, st.q, a.size.head_dim, kForwardPanels, scores, st.tile_top);
  } else {
    dot_keys<false>(k + tile.first * ks, ks, count, st.q, a.size.head_dim, kForwardPanels, scores, nullptr);
    for (int p = 0; p < kForwardPanels; p++) hide_tile(tile, p, st);
  }
  for (int p = 0; p < kForwardPanels; p++) softmax_tile(count, p, st);

  const float* rescale = st.rescale;
  int64_t done = 0;
  for (int64_t j = 0; j < count; j++) {
    const int64_t key = tile.first + j;
    if (key >= tile.full_first && key < tile.full_last) continue;
    if (all_finite(v + key * vs, 0, 1, a.size.value_dim)) continue;
    if (j > done) {
      add_values(v + (tile.first + done) * vs, vs, a.size.value_dim, done, j - done, rescale, st);
      rescale = kOnes;
    }
    add_value_where_seen(v + key * vs, a.size.value_dim, j, tile.seen[j], rescale, st);
    rescale = kOnes;
    done = j + 1;
  }
  if (done < count) add_values(v + (tile.first + done) * vs, vs, a.size.value_dim, done, count - done, rescale, st);
}

static void forward_block(const ForwardArgs& a, int64_t b, int64_t h, int64_t block, float* scratch) {
  const int64_t row = block * kForwardRows, count = min64(kForwardRows, a.size.q_len - row);
  const int64_t kv = h / (a.size.heads / a.size.kv_heads), dim = a.size.head_dim, value_dim = a.size.value_dim;
  const float* k = a.k.data + b * a.k.stride_b + kv * a.k.stride_h;
  const float* v = a.v.data + b * a.v.stride_b + kv * a.v.stride_h;

  ForwardState st;
  st.q = scratch;
  st.p = st.q + kForwardRows * dim;
  st.out = st.p + kForwardRows * kForwardKeys;
  for (int64_t i = 0; i < kForwardRows * value_dim; i++) st.out[i] = 0.0f;
  for (int i = 0; i < kForwardRows; i++) {
    st.top[i] = -__builtin_inff();
    st.sum[i] = 0.0f;
  }
  pack_transposed(a.q.data + b * a.q.stride_b + h * a.q.stride_h + row * a.q.stride_t, a.q.stride_t, count, dim,
                  a.scale * kLog2e, kForwardPanels, st.q);

  RowWalk walk(a.plan, plan_row(a.plan, b, h, row), count, kForwardKeys);
  Tile tile;
  while (walk.next(tile)) attend_tile(a, k, v, tile, st);

  float inverse[kForwardRows];
  for (int i = 0; i < kForwardRows; i++) inverse[i] = st.sum[i] == 0.0f ? 0.0f : 1.0f / st.sum[i];
  unpack_transposed(st.out, inverse, count, value_dim,
                    a.out.data + b * a.out.stride_b + h * a.out.stride_h + row * a.out.stride_t, a.out.stride_t);
  if (a.lse)
    for (int64_t i = 0; i < count; i++)
      a.lse[(b * a.size.heads + h) * a.size.q_len + row + i] =
          st.sum[i] == 0.0f ? -__builtin_inff() : st.top[i] * kLn2 + __builtin_logf(st.sum[i]);
}

}  // namespace
}  // namespace mmha

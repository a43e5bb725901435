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
// in L1/L2. Per block and visited key: 32 * (D + Dv) FMAs. Rows of 16 bits are widened 64 at a time (blocks.h).
//
// Order of sums, per query row: keys ascending inside a tile aligned to a multiple of 256; per tile the maximum is
// updated, then l and O are rescaled, then the tile is added key by key. After every 1024 keys (a chunk, aligned too)
// maximum, l and O start anew, and what was found is merged into the row's total; so chunks can be computed apart. A
// hidden key adds exactly nothing, so the result of a row depends neither on the rows it shares a block with nor on
// the thread or batch it runs in.
#pragma once
#include "values.h"

namespace mmha {
namespace {

template <class E>
static inline void attend_tile(const ForwardArgs& a, const E* k, const E* v, Tile& tile, ForwardState& st) {
  const int64_t ks = a.k.stride_t, vs = a.v.stride_t;
  const Lanes scores = {st.p, kPanel, kForwardKeys * kPanel};
  for (int i = 0; i < kForwardRows; i++) st.tile_top[i] = st.chunk.top[i];
  if (tile.is_full() && !st.adjust.scores()) {
    dot_keys<true>(k + tile.first * ks, ks, tile.last - tile.first, st.q, scores, st.tile_top);
  } else {
    for (int r = 0; r < tile.runs; r++) {
      const Run run = tile.run[r];
      const Lanes part = {st.p + run.first * kPanel, kPanel, kForwardKeys * kPanel};
      dot_keys<false>(k + (tile.first + run.first) * ks, ks, run.last - run.first, st.q, part, nullptr);
    }
    if (st.adjust.scores()) adjust_scores(st.adjust, tile, scores, st.q.panels * kPanel, nullptr);
    for (int p = 0; p < st.q.panels; p++) hide_tile(tile, p, st);
  }
  for (int p = 0; p < st.q.panels; p++) softmax_tile(tile, p, st);
  if (st.adjust.drops()) drop_tile(tile, st);
  add_tile_values(v + tile.first * vs, vs, a.size.value_dim, tile, st);
}

static inline void place_state(const Sizes& s, float* scratch, ForwardState& st) {
  st.packed = scratch;
  st.p = st.packed + round_up(kForwardRows * (s.head_dim + 1), 16);
  st.chunk.place(st.p + kForwardRows * kForwardKeys);
  st.total.place(st.chunk.top + chunk_floats(s.value_dim));
  float* rest = st.total.top + chunk_floats(s.value_dim);
  st.pairs = reinterpret_cast<uint32_t*>(rest);
  st.wide = rest;
}

template <class E>
static inline void start_block(const ForwardArgs& a, int64_t b, int64_t h, int64_t row, float* scratch,
                               ForwardState& st) {
  place_state(a.size, scratch, st);
  if (kPairs<E>) st.wide += kForwardRows * (kForwardKeys / 2 + 1);
  const int64_t count = min64(kForwardRows, a.size.q_len - row);
  const int panels = (int)((count + kPanel - 1) / kPanel);
  st.q = {st.packed, a.size.head_dim, panels, score_factor(a.extras, a.scale), st.wide};
  st.adjust.start(a.extras, a.size, b, h, row, kForwardRows);
  pack(at<const E>(a.q, b, h, row), a.q.stride_t, count, st.q, st.packed);
}

// Divides by the denominators, which a sink joins only now, and writes the block's rows of out and lse.
template <class E>
static inline void finish_block(const ForwardArgs& a, int64_t b, int64_t h, int64_t row, const Softmax& sums) {
  const int64_t count = min64(kForwardRows, a.size.q_len - row);
  float lse[kForwardRows];
  const bool sink = a.extras && a.extras->sinks;
  const float keep = a.extras && a.extras->threshold ? a.extras->keep_scale : 1.0f;
  float inverse[kForwardRows] = {};
  for (int64_t i = 0; i < count; i++) {
    float top = sums.top[i], sum = sums.sum[i], taken = keep;
    if (sum == 0.0f) {  // nothing is visible
      lse[i] = -__builtin_inff();
      continue;
    }
    if (sink) {
      const float other = a.extras->sinks[h] * kLog2e, most = other > top ? other : top;
      const float shrink = __builtin_exp2f(top - most);
      sum = sum * shrink + __builtin_exp2f(other - most);
      taken *= shrink;
      top = most;
    }
    inverse[i] = taken / sum;
    lse[i] = top * kLn2 + __builtin_logf(sum);
  }
  for (int64_t i = 0; a.lse && i < count; i++) a.lse[(b * a.size.heads + h) * a.size.q_len + row + i] = lse[i];
  E* out = at<E>(a.out, b, h, row);
  E* low = a.residual ? static_cast<E*>(a.residual) + (out - static_cast<E*>(a.out.data)) : nullptr;
  unpack_transposed(sums.out, inverse, count, a.size.value_dim, out, low, a.out.stride_t);
}

template <class E>
static inline void attend_range(const ForwardArgs& a, int64_t b, int64_t h, int64_t row, int64_t first, int64_t last,
                                ForwardState& st) {
  const int64_t kv = h / (a.size.heads / a.size.kv_heads), value_dim = a.size.value_dim;
  const E *k = at<const E>(a.k, b, kv), *v = at<const E>(a.v, b, kv);
  RowWalk walk(a.plan, plan_row(a.plan, b, h, row), min64(kForwardRows, a.size.q_len - row), kForwardKeys);
  walk.within(first, last);
  st.chunk.clear(value_dim);
  Tile tile;
  int64_t chunk = -1;
  bool merged = false;
  while (walk.next(tile)) {
    if (chunk >= 0 && tile.first / kChunkKeys != chunk) {
      if (!merged) st.total.clear(value_dim);
      merge_chunk(value_dim, st.q.panels, st);
      merged = true;
    }
    chunk = tile.first / kChunkKeys;
    attend_tile(a, k, v, tile, st);
  }
  if (merged) merge_chunk(value_dim, st.q.panels, st);
  else {
    const Softmax only = st.chunk;
    st.chunk = st.total;
    st.total = only;
  }
}

template <class E>
static void forward_block(const ForwardArgs& a, int64_t b, int64_t h, int64_t block, float* scratch) {
  ForwardState st;
  start_block<E>(a, b, h, block * kForwardRows, scratch, st);
  attend_range<E>(a, b, h, block * kForwardRows, 0, a.size.k_len, st);
  finish_block<E>(a, b, h, block * kForwardRows, st.total);
}

template <class E>
static void forward_chunk(const ForwardArgs& a, int64_t b, int64_t h, int64_t block, int64_t chunk, float* part,
                          float* scratch) {
  ForwardState st;
  start_block<E>(a, b, h, block * kForwardRows, scratch, st);
  st.chunk.place(part);
  attend_range<E>(a, b, h, block * kForwardRows, chunk * kChunkKeys, (chunk + 1) * kChunkKeys, st);
}

template <class E>
static void forward_merge(const ForwardArgs& a, int64_t b, int64_t h, int64_t block, const float* parts, int64_t count,
                          float* scratch) {
  ForwardState st;
  place_state(a.size, scratch, st);
  const int64_t floats = chunk_floats(a.size.value_dim);
  st.total.clear(a.size.value_dim);
  for (int64_t c = 0; c < count; c++) {
    for (int64_t i = 0; i < floats; i++) st.chunk.top[i] = parts[c * floats + i];
    merge_chunk(a.size.value_dim, kForwardPanels, st);
  }
  finish_block<E>(a, b, h, block * kForwardRows, st.total);
}

}  // namespace
}  // namespace mmha

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
#include "few.h"
#include "values.h"

namespace mmha {
namespace {

// Keys and values as rows in memory, of one key/value head.
template <class E>
struct PlainRows {
  const E *k, *v;
  int64_t k_stride, v_stride, width;

  // Scores of a run: rows in the lanes; with Top, top becomes the maximum of itself and these.
  template <bool Top>
  void dot(const Tile& tile, const Run& run, ForwardState& st, float* top) const {
    const Lanes part = {st.p + run.first * kPanel, kPanel, kForwardKeys * kPanel};
    dot_keys<Top>(k + (tile.first + run.first) * k_stride, k_stride, run.last - run.first, st.q, part, top);
  }
  void add(const Tile& tile, ForwardState& st) const {
    add_tile_values(v + tile.first * v_stride, v_stride, width, tile, st);
  }
  void few_scores(const Tile& tile, const Run& run, ForwardState& st) const {
    mmha::few_scores(k + (tile.first + run.first) * k_stride, k_stride, run, st);
  }
  const char* ahead_of_powers(const Tile&, const Tile*, const ForwardState&) const { return nullptr; }
  void add_few(const Tile& tile, const Run& run, const Tile*, ForwardState& st) const {
    const E* row = v + (tile.first + run.first) * v_stride;
    const bool asks = v_stride == width && (st.few.rows > 1 || !kIsFloat<E>);
    add_few_values(row, v_stride, width, run, tile, asks ? row + 32 * width : nullptr, st);
  }
};

// S of the tile, with everything that bends it or is added, and the maximum of what is visible.
template <class S>
static inline void score_tile(const S& source, Tile& tile, ForwardState& st) {
  for (int i = 0; i < kForwardRows; i++) st.tile_top[i] = st.chunk.top[i];
  if (tile.is_full() && !st.adjust.scores()) return source.template dot<true>(tile, tile.run[0], st, st.tile_top);
  for (int r = 0; r < tile.runs; r++) source.template dot<false>(tile, tile.run[r], st, nullptr);
  if (st.adjust.scores())
    adjust_scores(st.adjust, tile, {st.p, kPanel, kForwardKeys * kPanel}, st.q.panels * kPanel, nullptr);
  for (int p = 0; p < st.q.panels; p++) hide_tile(tile, p, st);
}

template <class S>
static inline void attend_tile(const S& source, Tile& tile, const Tile* next, ForwardState& st) {
  if (st.few.rows) {
    for (int i = 0; i < kForwardRows; i++) st.tile_top[i] = st.chunk.top[i];
    return attend_few(source, tile, next, st);
  }
  score_tile(source, tile, st);
  for (int p = 0; p < st.q.panels; p++) softmax_tile(tile, p, st);
  if (st.adjust.drops()) drop_tile(tile, st);
  source.add(tile, st);
}

static inline void place_state(const Sizes& s, float* scratch, ForwardState& st) {
  st.packed = scratch;
  st.p = st.packed + round_up(kForwardRows * (s.head_dim + 1), 16);
  st.chunk.place(st.p + kForwardRows * kForwardKeys);
  st.total.place(st.chunk.top + chunk_floats(s.value_dim));
  st.few.rows = 0;
  st.few.keys = st.total.top + chunk_floats(s.value_dim);
  st.few.scores = st.few.keys + kPanel * s.head_dim;
  st.few.out = st.few.scores + kLanes * kFewStride;
  float* rest = st.few.out + kLanes * wide_width(s.head_dim > s.value_dim ? s.head_dim : s.value_dim);
  st.pairs = reinterpret_cast<uint32_t*>(rest);
  st.wide = rest;
}

static inline Place place_of(const ForwardArgs& a, int64_t b, int64_t h, int64_t block) {
  if (a.fold > 1) return {b, h, 0, a.fold * a.size.q_len, a.size.q_len};
  const int64_t row = block * kForwardRows;
  return {b, h, row, min64(kForwardRows, a.size.q_len - row), kForwardRows};
}

template <class E>
static inline void start_block(const ForwardArgs& a, const Place& where, float* scratch, ForwardState& st) {
  place_state(a.size, scratch, st);
  if (kPairs<E>) st.wide += kForwardRows * (kForwardKeys / 2 + 1);
  const int panels = (int)((where.count + kPanel - 1) / kPanel);
  st.q = {st.packed, a.size.head_dim, panels, score_factor(a.extras, a.scale), st.wide};
  st.adjust.start(a.extras, a.size, where.b, where.h, where.row, kForwardRows);
  if (is_few<E>(where)) start_few<E>(a, where, st);
  else pack(at<const E>(a.q, where.b, where.h, where.row), a.q.stride_t, where.count, st.q, st.packed);
}

// 1 / the denominator of each row, which a sink joins only now, and the rows' lse.
static inline void finish_sums(const ForwardArgs& a, const Place& where, const Softmax& sums, float* inverse,
                               float* lse) {
  const float keep = a.extras && a.extras->threshold ? a.extras->keep_scale : 1.0f;
  for (int64_t i = 0; i < where.count; i++) {
    float top = sums.top[i], sum = sums.sum[i], taken = keep;
    if (sum == 0.0f) {  // nothing is visible
      lse[i] = -__builtin_inff();
      continue;
    }
    if (a.extras && a.extras->sinks) {
      const float scaled = a.extras->sinks[where.head(i)] * kLog2e, other = scaled < -kLowest ? scaled : -kLowest;
      const float most = other > top ? other : top;
      const float shrink = __builtin_exp2f(top - most);
      sum = sum * shrink + __builtin_exp2f(other - most);
      taken *= shrink;
      top = most;
    }
    inverse[i] = taken / sum;
    lse[i] = top * kLn2 + __builtin_logf(sum);
  }
}

// Divides by the denominators and writes the block's rows of out and lse, head by head.
template <class E>
static inline void finish_block(const ForwardArgs& a, const Place& where, const ForwardState& st) {
  float inverse[kForwardRows] = {}, lse[kForwardRows];
  finish_sums(a, where, st.total, inverse, lse);
  for (int64_t i = 0; a.lse && i < where.count; i++)
    a.lse[(where.b * a.size.heads + where.head(i)) * a.size.q_len + where.query(i)] = lse[i];
  const int64_t width = a.size.value_dim, wide = wide_width(width);
  const auto low = [&](E* out) {
    return a.residual ? static_cast<E*>(a.residual) + (out - static_cast<E*>(a.out.data)) : nullptr;
  };
  E* out = at<E>(a.out, where.b, where.h, where.row);
  if (a.fold == 1 || a.out.stride_h == where.per_head * a.out.stride_t)
    return unpack_transposed(st.total.out, inverse, where.count, width, out, low(out), a.out.stride_t);
  // Rows of several heads: apart in memory, so one by one, through a panel of one row.
  float* rows = st.few.out;
  unpack_transposed<float>(st.total.out, inverse, where.count, width, rows, nullptr, wide);
  for (int64_t i = 0; i < where.count; i++) {
    out = at<E>(a.out, where.b, where.head(i), where.query(i));
    for (int64_t d = 0; d < width; d += kLanes) {
      const int part = (int)min64(kLanes, width - d);
      const Vec x = load(rows + i * wide + d);
      store_part(out + d, x, part);
      if (a.residual) store_part(low(out) + d, sub(x, load_part(out + d, part)), part);
    }
  }
}

// The block's rows against keys [first, last), multiples of a chunk.
template <class S>
static inline void attend_range(const ForwardArgs& a, const Place& where, const S& source, int64_t first, int64_t last,
                                ForwardState& st) {
  const int64_t value_dim = a.size.value_dim;
  RowWalk walk(a.plan, where.count, kForwardKeys,
               [&](int i) { return plan_row(a.plan, where.b, where.head(i), where.query(i)); });
  walk.within(first, last);
  st.chunk.clear(value_dim);
  Tile tiles[2];
  int64_t chunk = -1;
  bool merged = false, more = walk.next(tiles[0]);
  for (int at = 0; more; at ^= 1) {
    Tile& tile = tiles[at];
    more = walk.next(tiles[at ^ 1]);
    if (chunk >= 0 && tile.first / kChunkKeys != chunk) {
      if (st.few.rows) end_few_chunk(value_dim, st);
      if (!merged) st.total.clear(value_dim);
      merge_chunk(value_dim, st.q.panels, st);
      merged = true;
    }
    chunk = tile.first / kChunkKeys;
    attend_tile(source, tile, more ? &tiles[at ^ 1] : nullptr, st);
  }
  if (st.few.rows) end_few_chunk(value_dim, st);
  if (merged) return merge_chunk(value_dim, st.q.panels, st);
  const Softmax only = st.chunk;
  st.chunk = st.total;
  st.total = only;
}

template <class E>
static inline PlainRows<E> rows_of(const ForwardArgs& a, const Place& where) {
  const int64_t kv = where.h / (a.size.heads / a.size.kv_heads);
  return {at<const E>(a.k, where.b, kv), at<const E>(a.v, where.b, kv), a.k.stride_t, a.v.stride_t, a.size.value_dim};
}

// All keys of a block, or those of one chunk, whose result goes to `part`; source_of(where) says where they come from.
template <class E, class F>
static inline void attend_block(const ForwardArgs& a, const Place& where, float* scratch, F source_of) {
  ForwardState st;
  start_block<E>(a, where, scratch, st);
  attend_range(a, where, source_of(where), 0, a.size.k_len, st);
  finish_block<E>(a, where, st);
}
template <class E, class F>
static inline void attend_chunk(const ForwardArgs& a, const Place& where, int64_t chunk, float* part, float* scratch,
                                F source_of) {
  ForwardState st;
  start_block<E>(a, where, scratch, st);
  st.chunk.place(part);
  attend_range(a, where, source_of(where), chunk * kChunkKeys, (chunk + 1) * kChunkKeys, st);
}

template <class E>
static void forward_block(const ForwardArgs& a, int64_t b, int64_t h, int64_t block, float* scratch) {
  attend_block<E>(a, place_of(a, b, h, block), scratch, [&](const Place& at) { return rows_of<E>(a, at); });
}

template <class E>
static void forward_chunk(const ForwardArgs& a, int64_t b, int64_t h, int64_t block, int64_t chunk, float* part,
                          float* scratch) {
  attend_chunk<E>(a, place_of(a, b, h, block), chunk, part, scratch,
                  [&](const Place& at) { return rows_of<E>(a, at); });
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
  finish_block<E>(a, place_of(a, b, h, block), st);
}

}  // namespace
}  // namespace mmha

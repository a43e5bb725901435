// Backward attention, recomputing the probabilities from the saved lse.
//
//   P = exp(scale * Q K^T - lse)      dS = scale * P * (dO V^T - delta)      delta = rowsum(O * dO) - d(lse)
//   dV = P^T dO                       dK = dS^T Q                            dQ = dS K
//
// Per 64 queries x 128 keys: P and dS are computed transposed, [key][query], lanes = queries (as in forward.h); the
// three outer products then broadcast an element of P or dS and run their lanes along the head dimension, so that
// nothing is packed but Q and dO, once per block.
//
// Two schedules give the same bits, because every number is one chain of FMAs in ascending order of query head of
// the group, query and key (dK, dV: over queries; dQ: over keys), whatever the tiles:
//   backward_group                      5 products a tile, one task per (batch, key/value head)
//   backward_keys and backward_queries  7 products a tile, for when there are fewer such heads than threads
#pragma once
#include "blocks.h"
#include "tile.h"

namespace mmha {
namespace {

constexpr int kBackwardPanels = kBackwardRows / kPanel;

// One block of 64 query rows.
struct QueryBlock {
  const float *q, *grad_out;  // row-major, as given
  int64_t q_stride, grad_stride, count;
  bool finite;  // all of q and grad_out
  int64_t plan_row;
  float* packed_q;     // [panel][D][kPanel], times scale * log2(e)
  float* packed_grad;  // [panel][Dv][kPanel]
  float lse[kBackwardRows], delta[kBackwardRows];
};

struct BackwardState {
  QueryBlock block;
  Tile tile;
  float* p;   // [key][kBackwardRows]
  float* ds;  // [key][kBackwardRows]
};

static int64_t backward_scratch(const Sizes& s) {
  return kBackwardRows * (s.head_dim + s.value_dim + 2 * kBackwardKeys) + 3 * kLanes;
}

static inline void start_state(const Sizes& s, float* scratch, BackwardState& st) {
  st.p = scratch;
  st.ds = st.p + kBackwardKeys * kBackwardRows;
  st.block.packed_q = st.ds + kBackwardKeys * kBackwardRows;
  st.block.packed_grad = st.block.packed_q + kBackwardRows * s.head_dim;
}

static inline void load_block(const BackwardArgs& a, int64_t b, int64_t h, int64_t index, QueryBlock& block) {
  const int64_t row = index * kBackwardRows, flat = (b * a.size.heads + h) * a.size.q_len + row;
  block.count = min64(kBackwardRows, a.size.q_len - row);
  block.plan_row = plan_row(a.plan, b, h, row);
  block.q_stride = a.q.stride_t;
  block.grad_stride = a.grad_out.stride_t;
  block.q = a.q.data + b * a.q.stride_b + h * a.q.stride_h + row * a.q.stride_t;
  block.grad_out = a.grad_out.data + b * a.grad_out.stride_b + h * a.grad_out.stride_h + row * a.grad_out.stride_t;
  block.finite = all_finite(block.q, block.q_stride, block.count, a.size.head_dim) &&
                 all_finite(block.grad_out, block.grad_stride, block.count, a.size.value_dim);
  pack_transposed(block.q, block.q_stride, block.count, a.size.head_dim, a.scale * kLog2e, kBackwardPanels,
                  block.packed_q);
  pack_transposed(block.grad_out, block.grad_stride, block.count, a.size.value_dim, 1.0f, kBackwardPanels,
                  block.packed_grad);
  for (int i = 0; i < kBackwardRows; i++) {
    const float lse = i < block.count ? a.lse[flat + i] : 0.0f;
    block.lse[i] = lse == -__builtin_inff() ? 0.0f : lse * kLog2e;
    block.delta[i] = i < block.count ? a.delta[flat + i] : 0.0f;
  }
}

// P and dS of the tile; exactly 0 where hidden, whatever K, V, Q or dO hold there.
static inline void probabilities(const BackwardArgs& a, const float* k, const float* v, BackwardState& st) {
  const Tile& tile = st.tile;
  const int64_t count = tile.last - tile.first;
  dot_keys<false>(k + tile.first * a.k.stride_t, a.k.stride_t, count, st.block.packed_q, a.size.head_dim,
                  kBackwardPanels, {st.p, kBackwardRows, kPanel}, nullptr);
  dot_keys<false>(v + tile.first * a.v.stride_t, a.v.stride_t, count, st.block.packed_grad, a.size.value_dim,
                  kBackwardPanels, {st.ds, kBackwardRows, kPanel}, nullptr);
  const Vec scale = set1(a.scale);
  for (int lane = 0; lane < kBackwardRows; lane += kLanes) {
    const Vec lse = load(st.block.lse + lane), delta = load(st.block.delta + lane);
    for (int64_t j = 0; j < count; j++) {
      const int64_t key = tile.first + j;
      float *p_at = st.p + j * kBackwardRows + lane, *ds_at = st.ds + j * kBackwardRows + lane;
      Vec p = exp2(sub(load(p_at), lse));
      Vec ds = mul(mul(p, sub(load(ds_at), delta)), scale);
      if (key < tile.full_first || key >= tile.full_last) {
        const Mask seen = lane_mask((uint32_t)(tile.seen[j] >> lane) & ((1u << kLanes) - 1u));
        p = select(seen, p, zero());
        ds = select(seen, ds, zero());
      }
      store(p_at, p);
      store(ds_at, ds);
    }
  }
}

// c[r][0 .. kLanes * NV) += sum_x a[r * a_row + x * a_sum] * b[x][...], x ascending. With `part` > 0 the last vector
// of a row holds only `part` numbers.
template <int R, int NV, bool Part>
MMHA_INLINE void outer_tile(const float* a, int64_t a_row, int64_t a_sum, const float* b, int64_t b_stride,
                            int64_t count, float* c, int64_t c_stride, int part) {
  Vec acc[R][NV];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
      const float* at = c + r * c_stride + v * kLanes;
      acc[r][v] = Part && v == NV - 1 ? load_part(at, part) : load(at);
    }
  for (int64_t x = 0; x < count; x++) {
    Vec y[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
      const float* at = b + x * b_stride + v * kLanes;
      y[v] = Part && v == NV - 1 ? load_part(at, part) : load(at);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const Vec w = set1(a[r * a_row + x * a_sum]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) acc[r][v] = fma(w, y[v], acc[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
      float* at = c + r * c_stride + v * kLanes;
      if (Part && v == NV - 1) store_part(at, acc[r][v], part);
      else store(at, acc[r][v]);
    }
}

struct Product {
  const float* a;
  int64_t a_row, a_sum, rows;
  const float* b;
  int64_t b_stride, count;
  float* c;
  int64_t c_stride, width;
};

template <int NV, bool Part>
static inline void outer_columns(const Product& m, int64_t column, int part) {
  for (int64_t r = 0; r < m.rows; r += kGemmRows) {
    const int n = (int)(m.rows - r < kGemmRows ? m.rows - r : kGemmRows);
    with_rows<kGemmRows>(n, [&](auto rows) {
      outer_tile<decltype(rows)::count, NV, Part>(m.a + r * m.a_row, m.a_row, m.a_sum, m.b + column, m.b_stride,
                                                  m.count, m.c + r * m.c_stride + column, m.c_stride, part);
    });
  }
}

// c += a b
static inline void outer(const Product& m) {
  int64_t column = 0;
  for (; column + kGemmVectors * kLanes <= m.width; column += kGemmVectors * kLanes)
    outer_columns<kGemmVectors, false>(m, column, 0);
  for (; column + kLanes <= m.width; column += kLanes) outer_columns<1, false>(m, column, 0);
  if (column < m.width) outer_columns<1, true>(m, column, (int)(m.width - column));
}

static inline void add_scaled_row(float w, const float* b, float* c, int64_t width) {
  const Vec x = set1(w);
  int64_t d = 0;
  for (; d + kLanes <= width; d += kLanes) store(c + d, fma(x, load(b + d), load(c + d)));
  const int part = (int)(width - d);
  if (part > 0) store_part(c + d, fma(x, load_part(b + d, part), load_part(c + d, part)), part);
}

// c[r] += a[r, x] b[x] over the seen pairs alone, for 0 * inf is NaN; the same chain of FMAs as outer().
// key_is_row: rows of the product are keys and x are queries, or the reverse.
static inline void outer_where_seen(const Product& m, const Tile& tile, bool key_is_row) {
  for (int64_t r = 0; r < m.rows; r++)
    for (int64_t x = 0; x < m.count; x++) {
      const int64_t key = key_is_row ? r : x, query = key_is_row ? x : r;
      if (tile.row_bits(tile.first + key) >> query & 1)
        add_scaled_row(m.a[r * m.a_row + x * m.a_sum], m.b + x * m.b_stride, m.c + r * m.c_stride, m.width);
    }
}

static inline void add_product(const Product& m, const Tile& tile, bool key_is_row, bool finite) {
  if (finite || tile.is_full()) outer(m);
  else outer_where_seen(m, tile, key_is_row);
}

static inline void add_keys(const BackwardArgs& a, const BackwardState& st, float* grad_k, float* grad_v) {
  const QueryBlock& q = st.block;
  const int64_t count = st.tile.last - st.tile.first, ks = a.grad_k.stride_t, vs = a.grad_v.stride_t;
  add_product({st.p, kBackwardRows, 1, count, q.grad_out, q.grad_stride, q.count, grad_v + st.tile.first * vs, vs,
               a.size.value_dim},
              st.tile, true, q.finite);
  add_product(
      {st.ds, kBackwardRows, 1, count, q.q, q.q_stride, q.count, grad_k + st.tile.first * ks, ks, a.size.head_dim},
      st.tile, true, q.finite);
}

static inline void add_queries(const BackwardArgs& a, const float* k, const BackwardState& st, float* grad_q) {
  const int64_t count = st.tile.last - st.tile.first;
  const float* keys = k + st.tile.first * a.k.stride_t;
  const bool finite = st.tile.is_full() || all_finite(keys, a.k.stride_t, count, a.size.head_dim);
  add_product(
      {st.ds, 1, kBackwardRows, st.block.count, keys, a.k.stride_t, count, grad_q, a.grad_q.stride_t, a.size.head_dim},
      st.tile, false, finite);
}

static inline void clear_rows(float* x, int64_t stride, int64_t rows, int64_t width) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t d = 0; d < width; d++) x[i * stride + d] = 0.0f;
}

static inline float* head_of(const Tensor& t, int64_t b, int64_t h) { return t.data + b * t.stride_b + h * t.stride_h; }

static void backward_group(const BackwardArgs& a, int64_t b, int64_t kv_head, float* scratch) {
  const int64_t group = a.size.heads / a.size.kv_heads;
  const int64_t blocks = (a.size.q_len + kBackwardRows - 1) / kBackwardRows;
  const float *k = head_of(a.k, b, kv_head), *v = head_of(a.v, b, kv_head);
  float *grad_k = head_of(a.grad_k, b, kv_head), *grad_v = head_of(a.grad_v, b, kv_head);
  clear_rows(grad_k, a.grad_k.stride_t, a.size.k_len, a.size.head_dim);
  clear_rows(grad_v, a.grad_v.stride_t, a.size.k_len, a.size.value_dim);
  BackwardState st;
  start_state(a.size, scratch, st);
  for (int64_t h = kv_head * group; h < (kv_head + 1) * group; h++)
    for (int64_t index = 0; index < blocks; index++) {
      load_block(a, b, h, index, st.block);
      float* grad_q = head_of(a.grad_q, b, h) + index * kBackwardRows * a.grad_q.stride_t;
      clear_rows(grad_q, a.grad_q.stride_t, st.block.count, a.size.head_dim);
      RowWalk walk(a.plan, st.block.plan_row, st.block.count, kBackwardKeys);
      while (walk.next(st.tile)) {
        probabilities(a, k, v, st);
        add_keys(a, st, grad_k, grad_v);
        add_queries(a, k, st, grad_q);
      }
    }
}

static void backward_keys(const BackwardArgs& a, int64_t b, int64_t kv_head, int64_t tile, const BlockRuns* runs,
                          float* scratch) {
  const int64_t group = a.size.heads / a.size.kv_heads, first = tile * kBackwardKeys;
  const int64_t count = min64(kBackwardKeys, a.size.k_len - first);
  const float *k = head_of(a.k, b, kv_head), *v = head_of(a.v, b, kv_head);
  float *grad_k = head_of(a.grad_k, b, kv_head), *grad_v = head_of(a.grad_v, b, kv_head);
  clear_rows(grad_k + first * a.grad_k.stride_t, a.grad_k.stride_t, count, a.size.head_dim);
  clear_rows(grad_v + first * a.grad_v.stride_t, a.grad_v.stride_t, count, a.size.value_dim);
  BackwardState st;
  start_state(a.size, scratch, st);
  for (int64_t g = 0; g < group; g++)
    for (int64_t r = 0; r < runs[g].count; r++)
      for (int64_t index = runs[g].runs[r].start; index < runs[g].runs[r].stop; index++) {
        load_block(a, b, kv_head * group + g, index, st.block);
        RowWalk walk(a.plan, st.block.plan_row, st.block.count, kBackwardKeys);
        if (!walk.only(first, st.tile)) continue;
        probabilities(a, k, v, st);
        add_keys(a, st, grad_k, grad_v);
      }
}

static void backward_queries(const BackwardArgs& a, int64_t b, int64_t h, int64_t block, float* scratch) {
  const int64_t kv = h / (a.size.heads / a.size.kv_heads);
  const float *k = head_of(a.k, b, kv), *v = head_of(a.v, b, kv);
  BackwardState st;
  start_state(a.size, scratch, st);
  load_block(a, b, h, block, st.block);
  float* grad_q = head_of(a.grad_q, b, h) + block * kBackwardRows * a.grad_q.stride_t;
  clear_rows(grad_q, a.grad_q.stride_t, st.block.count, a.size.head_dim);
  RowWalk walk(a.plan, st.block.plan_row, st.block.count, kBackwardKeys);
  while (walk.next(st.tile)) {
    probabilities(a, k, v, st);
    add_queries(a, k, st, grad_q);
  }
}

}  // namespace
}  // namespace mmha

// Backward attention, recomputing the probabilities from the saved lse (probabilities.h).
//
//   dS = scale * P * (dO V^T - delta)      dV = P^T dO      dK = dS^T Q      dQ = dS K
//
// Per 64 queries x 128 keys P and dS stand as [key][query]; the three outer products broadcast an element of P or dS
// and run their lanes along the head dimension, so that nothing is packed but Q and dO, once per block. All sums are
// float32, also of 16-bit inputs: those are widened, and their gradients rounded once, at the end.
//
// Two schedules give the same bits, because every number is one chain of FMAs in ascending order of query head of
// the group, query and key (dK, dV: over queries; dQ: over keys), whatever the tiles:
//   backward_group                      5 products a tile, one task per (batch, key/value head)
//   backward_keys and backward_queries  7 products a tile, for when there are fewer such heads than threads
#pragma once
#include "outer.h"

namespace mmha {
namespace {

// Where a gradient is summed in float32: in place, or in a buffer that is rounded at the end.
struct Sums {
  float* data;
  int64_t stride;
};
MMHA_INLINE Sums sums_of(float* x, int64_t stride, int64_t, float*) { return {x, stride}; }
template <class E>
MMHA_INLINE Sums sums_of(E*, int64_t, int64_t width, float* buffer) {
  return {buffer, wide_width(width)};
}
MMHA_INLINE void write_sums(const Sums&, float*, int64_t, int64_t, int64_t) {}
template <class E>
static inline void write_sums(const Sums& from, E* to, int64_t stride, int64_t rows, int64_t width) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t d = 0; d < width; d += kLanes) {
      const int part = (int)(width - d < kLanes ? width - d : kLanes);
      if (part == kLanes) store(to + i * stride + d, load(from.data + i * from.stride + d));
      else store_part(to + i * stride + d, load(from.data + i * from.stride + d), part);
    }
}

static inline void clear_rows(const Sums& x, int64_t rows, int64_t width) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t d = 0; d < width; d++) x.data[i * x.stride + d] = 0.0f;
}

// grad_k and grad_v of the tile's keys; the sums' first row is the tile's first key.
static inline void add_keys(const BackwardArgs& a, const BackwardState& st, Sums grad_k, Sums grad_v) {
  const QueryBlock& q = st.block;
  for (int r = 0; r < st.tile.runs; r++) {
    const Run& run = st.tile.run[r];
    const int64_t rows = run.last - run.first, offset = run.first * kBackwardRows;
    add_product({st.p + offset, kBackwardRows, 1, rows, q.grad_out, q.grad_stride, q.count,
                 grad_v.data + run.first * grad_v.stride, grad_v.stride, a.size.value_dim},
                st.tile, run, true, q.finite);
    add_product({st.ds + offset, kBackwardRows, 1, rows, q.q, q.q_stride, q.count,
                 grad_k.data + run.first * grad_k.stride, grad_k.stride, a.size.head_dim},
                st.tile, run, true, q.finite);
  }
}

// grad_q of the block.
template <class E>
static inline void add_queries(const BackwardArgs& a, const E* k, const BackwardState& st, Sums grad_q) {
  const int64_t dim = a.size.head_dim;
  for (int r = 0; r < st.tile.runs; r++) {
    const Run& run = st.tile.run[r];
    const int64_t count = run.last - run.first;
    const RowView keys = wide_rows(k + (st.tile.first + run.first) * a.k.stride_t, a.k.stride_t, count, dim, st.wide_k);
    const bool finite = st.tile.is_full() || all_finite(keys.data, keys.stride, count, dim);
    add_product({st.ds + run.first * kBackwardRows, 1, kBackwardRows, st.block.count, keys.data, keys.stride, count,
                 grad_q.data, grad_q.stride, dim},
                st.tile, run, false, finite);
  }
}

static inline Sums from_key(Sums x, int64_t key) { return {x.data + key * x.stride, x.stride}; }

template <class E>
static void backward_group(const BackwardArgs& a, int64_t b, int64_t kv_head, float* scratch) {
  const Sizes& s = a.size;
  const int64_t group = s.heads / s.kv_heads, blocks = (s.q_len + kBackwardRows - 1) / kBackwardRows;
  const E *k = at<const E>(a.k, b, kv_head), *v = at<const E>(a.v, b, kv_head);
  E *to_k = at<E>(a.grad_k, b, kv_head), *to_v = at<E>(a.grad_v, b, kv_head);
  BackwardState st;
  start_state<E>(s, scratch, s.k_len, st);
  const Sums grad_k = sums_of(to_k, a.grad_k.stride_t, s.head_dim, st.grad_k);
  const Sums grad_v = sums_of(to_v, a.grad_v.stride_t, s.value_dim, st.grad_v);
  clear_rows(grad_k, s.k_len, s.head_dim);
  clear_rows(grad_v, s.k_len, s.value_dim);
  for (int64_t h = kv_head * group; h < (kv_head + 1) * group; h++)
    for (int64_t index = 0; index < blocks; index++) {
      load_block<E>(a, b, h, index, st);
      E* to = at<E>(a.grad_q, b, h, index * kBackwardRows);
      const Sums grad_q = sums_of(to, a.grad_q.stride_t, s.head_dim, st.grad_q);
      clear_rows(grad_q, st.block.count, s.head_dim);
      RowWalk walk(a.plan, st.block.plan_row, st.block.count, kBackwardKeys);
      while (walk.next(st.tile)) {
        probabilities(a, k, v, false, st);
        add_keys(a, st, from_key(grad_k, st.tile.first), from_key(grad_v, st.tile.first));
        add_queries(a, k, st, grad_q);
      }
      write_sums(grad_q, to, a.grad_q.stride_t, st.block.count, s.head_dim);
    }
  write_sums(grad_k, to_k, a.grad_k.stride_t, s.k_len, s.head_dim);
  write_sums(grad_v, to_v, a.grad_v.stride_t, s.k_len, s.value_dim);
}

template <class E>
static void backward_keys(const BackwardArgs& a, int64_t b, int64_t kv_head, int64_t tile, const BlockRuns* runs,
                          float* scratch) {
  const Sizes& s = a.size;
  const int64_t group = s.heads / s.kv_heads, first = tile * kBackwardKeys;
  const int64_t count = min64(kBackwardKeys, s.k_len - first);
  const E *k = at<const E>(a.k, b, kv_head), *v = at<const E>(a.v, b, kv_head);
  E *to_k = at<E>(a.grad_k, b, kv_head, first), *to_v = at<E>(a.grad_v, b, kv_head, first);
  BackwardState st;
  start_state<E>(s, scratch, kBackwardKeys, st);
  const Sums grad_k = sums_of(to_k, a.grad_k.stride_t, s.head_dim, st.grad_k);
  const Sums grad_v = sums_of(to_v, a.grad_v.stride_t, s.value_dim, st.grad_v);
  clear_rows(grad_k, count, s.head_dim);
  clear_rows(grad_v, count, s.value_dim);
  for (int64_t g = 0; g < group; g++)
    for (int64_t r = 0; r < runs[g].count; r++)
      for (int64_t index = runs[g].runs[r].start; index < runs[g].runs[r].stop; index++) {
        load_block<E>(a, b, kv_head * group + g, index, st);
        RowWalk walk(a.plan, st.block.plan_row, st.block.count, kBackwardKeys);
        if (!walk.only(first, st.tile)) continue;
        probabilities(a, k, v, false, st);
        add_keys(a, st, from_key(grad_k, st.tile.first - first), from_key(grad_v, st.tile.first - first));
      }
  write_sums(grad_k, to_k, a.grad_k.stride_t, count, s.head_dim);
  write_sums(grad_v, to_v, a.grad_v.stride_t, count, s.value_dim);
}

template <class E>
static void backward_queries(const BackwardArgs& a, int64_t b, int64_t h, int64_t block, float* scratch) {
  const Sizes& s = a.size;
  const int64_t kv = h / (s.heads / s.kv_heads);
  const E *k = at<const E>(a.k, b, kv), *v = at<const E>(a.v, b, kv);
  BackwardState st;
  start_state<E>(s, scratch, 0, st);
  load_block<E>(a, b, h, block, st);
  E* to = at<E>(a.grad_q, b, h, block * kBackwardRows);
  const Sums grad_q = sums_of(to, a.grad_q.stride_t, s.head_dim, st.grad_q);
  clear_rows(grad_q, st.block.count, s.head_dim);
  RowWalk walk(a.plan, st.block.plan_row, st.block.count, kBackwardKeys);
  while (walk.next(st.tile)) {
    probabilities(a, k, v, false, st);
    add_queries(a, k, st, grad_q);
  }
  write_sums(grad_q, to, a.grad_q.stride_t, st.block.count, s.head_dim);
}

// out[b, h, i] = sum_d (a[d] + residual[d]) * b[d], lanes along d, then the lanes.
template <class E>
static void row_dot(const RowDotArgs& r, int64_t b, int64_t h) {
  for (int64_t i = 0; i < r.rows; i++) {
    const E *x = at<const E>(r.a, b, h, i), *y = at<const E>(r.b, b, h, i);
    const E* low = r.residual ? static_cast<const E*>(r.residual) + (x - static_cast<const E*>(r.a.data)) : nullptr;
    Vec sum = zero();
    for (int64_t d = 0; d < r.width; d += kLanes) {
      const int part = (int)(r.width - d < kLanes ? r.width - d : kLanes);
      const auto row = [&](const E* p) { return part == kLanes ? load(p + d) : load_part(p + d, part); };
      sum = fma(low ? add(row(x), row(low)) : row(x), row(y), sum);
    }
    r.out[(b * r.heads + h) * r.rows + i] = sum_lanes(sum);
  }
}

}  // namespace
}  // namespace mmha

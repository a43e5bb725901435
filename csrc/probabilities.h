// What backward recomputes of one tile of 64 queries x 128 keys, from the saved lse:
//
//   P = exp(S - lse)      G = P * (dO V^T + dP - delta)      delta = rowsum(O * dO) + rowsum(P * dP) - d(lse)
//
// S as forward has it, with bias, softcap and dropout; G is the gradient of what enters the softmax; dP is the gradient
// of weights that were returned, if they were. All stand transposed, [key][query], lanes = queries, as in forward.h.
#pragma once
#include "adjust.h"

namespace mmha {
namespace {

constexpr int kBackwardPanels = kBackwardRows / kPanel;

// One block of 64 query rows.
struct QueryBlock {
  const float *q, *grad_out;  // row-major float32: as given, or widened
  int64_t q_stride, grad_stride, count;
  bool finite;  // all of q and grad_out
  int64_t plan_row;
  Packed packed_q, packed_grad;
  float lse[kBackwardRows], delta[kBackwardRows];
};

struct BackwardState {
  QueryBlock block;
  Tile tile;
  Adjust adjust;
  float* p;       // [key][kBackwardRows]
  float* ds;      // [key][kBackwardRows]
  float* slope;   // [key][kBackwardRows], the derivative of the softcap
  float* dp;      // [key][kBackwardRows], the gradient of returned weights
  float* packed;  // the packed q and grad_out
  // For 16-bit inputs alone: the block's q and grad_out and the tile's k or v, widened; gradients before rounding.
  float *wide_q, *wide_k, *grad_q, *grad_k, *grad_v;
};

template <class E>
static int64_t backward_scratch(const Sizes& s, int64_t keys) {
  const int64_t wide = wide_width(s.head_dim) + wide_width(s.value_dim);
  return kBackwardRows * (s.head_dim + s.value_dim + 2 + 4 * kBackwardKeys) + 3 * kLanes +
         (kIsFloat<E> ? 0 : (2 * kBackwardRows + kBackwardKeys + keys) * wide);
}

template <class E>
static inline void start_state(const Sizes& s, float* scratch, int64_t keys, BackwardState& st) {
  st.p = scratch;
  st.ds = st.p + kBackwardKeys * kBackwardRows;
  st.slope = st.ds + kBackwardKeys * kBackwardRows;
  st.dp = st.slope + kBackwardKeys * kBackwardRows;
  st.packed = st.dp + kBackwardKeys * kBackwardRows;
  st.wide_q = st.packed + kBackwardRows * (s.head_dim + s.value_dim + 2);
  const int64_t d = kIsFloat<E> ? 0 : wide_width(s.head_dim), dv = kIsFloat<E> ? 0 : wide_width(s.value_dim);
  st.wide_k = st.wide_q + kBackwardRows * (d + dv);
  st.grad_q = st.wide_k + kBackwardKeys * (d + dv);
  st.grad_k = st.grad_q + kBackwardRows * (d + dv);
  st.grad_v = st.grad_k + keys * d;
}

// What the scores need of a block of rows.
template <class E>
static inline void load_queries(const BackwardArgs& a, int64_t b, int64_t h, int64_t index, BackwardState& st) {
  const int64_t row = index * kBackwardRows, flat = (b * a.size.heads + h) * a.size.q_len + row;
  QueryBlock& block = st.block;
  block.count = min64(kBackwardRows, a.size.q_len - row);
  block.plan_row = plan_row(a.plan, b, h, row);
  block.packed_q = {st.packed, a.size.head_dim, kBackwardPanels, score_factor(a.extras, a.scale), st.wide_k};
  pack(at<const E>(a.q, b, h, row), a.q.stride_t, block.count, block.packed_q, st.packed);
  for (int i = 0; i < kBackwardRows; i++) {
    const float lse = i < block.count ? a.lse[flat + i] : 0.0f;
    block.lse[i] = lse == -__builtin_inff() ? 0.0f : lse * kLog2e;
  }
  st.adjust.start(a.extras, a.size, b, h, row, kBackwardRows);
}

template <class E>
static inline void load_block(const BackwardArgs& a, int64_t b, int64_t h, int64_t index, BackwardState& st) {
  load_queries<E>(a, b, h, index, st);
  const int64_t row = index * kBackwardRows, flat = (b * a.size.heads + h) * a.size.q_len + row;
  QueryBlock& block = st.block;
  const E *q = at<const E>(a.q, b, h, row), *grad = at<const E>(a.grad_out, b, h, row);
  const int64_t dim = a.size.head_dim, value_dim = a.size.value_dim;
  const RowView q_rows = wide_rows(q, a.q.stride_t, block.count, dim, st.wide_q);
  const RowView grad_rows =
      wide_rows(grad, a.grad_out.stride_t, block.count, value_dim, st.wide_q + kBackwardRows * wide_width(dim));
  block.q = q_rows.data;
  block.q_stride = q_rows.stride;
  block.grad_out = grad_rows.data;
  block.grad_stride = grad_rows.stride;
  block.finite = all_finite(block.q, block.q_stride, block.count, dim) &&
                 all_finite(block.grad_out, block.grad_stride, block.count, value_dim);
  float* packed_grad = st.packed + kBackwardRows * (dim + 1);
  block.packed_grad = {packed_grad, value_dim, kBackwardPanels, 1.0f, st.wide_k};
  pack(grad, a.grad_out.stride_t, block.count, block.packed_grad, packed_grad);
  for (int i = 0; i < kBackwardRows; i++) block.delta[i] = i < block.count ? a.delta[flat + i] : 0.0f;
}

// P and dS = scale * G of the tile when nothing is adjusted; exactly 0 where hidden, whatever K, V, Q or dO hold there.
static inline void plain_probabilities(float factor, BackwardState& st) {
  const Tile& tile = st.tile;
  const Vec scale = set1(factor);
  for (int lane = 0; lane < kBackwardRows; lane += kLanes) {
    const Vec lse = load(st.block.lse + lane), delta = load(st.block.delta + lane);
    for (int r = 0; r < tile.runs; r++)
      for (int64_t j = tile.run[r].first; j < tile.run[r].last; j++) {
        float *p_at = st.p + j * kBackwardRows + lane, *ds_at = st.ds + j * kBackwardRows + lane;
        Vec p = exp2(sub(load(p_at), lse));
        Vec ds = mul(mul(p, sub(load(ds_at), delta)), scale);
        if (tile.is_mixed(tile.first + j)) {
          const Mask seen = lanes_of(tile.seen[j], lane);
          p = select(seen, p, zero());
          ds = select(seen, ds, zero());
        }
        store(p_at, p);
        store(ds_at, ds);
      }
  }
}

// The same with everything: what is dropped has no value and gives none a gradient. `ds` gets factor * G, and with a
// softcap, unless it is G that is wanted, the derivative of the cap as well. returned: the weights have a gradient.
static inline void adjusted_probabilities(float factor, bool of_scores, bool returned, BackwardState& st) {
  Adjust& a = st.adjust;
  const bool capped = a.x->softcap != 0.0f && !of_scores;
  if (a.scores()) adjust_scores(a, st.tile, {st.p, kBackwardRows, kPanel}, kBackwardRows, capped ? st.slope : nullptr);
  const Tile& tile = st.tile;
  const Vec scale = set1(factor), keep_scale = set1(a.x->keep_scale);
  const Ints threshold = iset1(a.x->threshold);
  for (int r = 0; r < tile.runs; r++)
    for (int64_t j = tile.run[r].first; j < tile.run[r].last; j++) {
      const uint64_t key = a.drops() ? a.random.of_key(tile.first + j) : 0;
      for (int lane = 0; lane < kBackwardRows; lane += kLanes) {
        float *p_at = st.p + j * kBackwardRows + lane, *ds_at = st.ds + j * kBackwardRows + lane;
        const Vec p = exp2(sub(load(p_at), load(st.block.lse + lane)));
        Vec dp = load(ds_at), used = p;
        if (a.drops()) {
          const Mask dropped = below(random_bits(a.random, lane, key), threshold);
          used = select(dropped, zero(), mul(p, keep_scale));
          dp = select(dropped, zero(), mul(dp, keep_scale));
        }
        if (returned) dp = add(dp, load(st.dp + (p_at - st.p)));
        Vec ds = mul(mul(p, sub(dp, load(st.block.delta + lane))), scale);
        if (capped) ds = mul(ds, load(st.slope + (p_at - st.p)));
        if (tile.is_mixed(tile.first + j)) {
          const Mask seen = lanes_of(tile.seen[j], lane);
          used = select(seen, used, zero());
          ds = select(seen, ds, zero());
        }
        store(p_at, used);
        store(ds_at, ds);
      }
    }
}

// S of the tile, before what adjusts it.
template <class E>
static inline void score_runs(const BackwardArgs& a, const E* k, BackwardState& st) {
  const Tile& tile = st.tile;
  for (int r = 0; r < tile.runs; r++) {
    const int64_t first = tile.first + tile.run[r].first, count = tile.run[r].last - tile.run[r].first;
    dot_keys<false>(k + first * a.k.stride_t, a.k.stride_t, count, st.block.packed_q,
                    {st.p + tile.run[r].first * kBackwardRows, kBackwardRows, kPanel}, nullptr);
  }
}

// Fills st.p with the probabilities that met the values and st.ds with the gradient of scale * q.k over scale, times
// scale; or, of_scores, of what enters the softmax.
template <class E>
static inline void probabilities(const BackwardArgs& a, const E* k, const E* v, bool of_scores, BackwardState& st) {
  const Tile& tile = st.tile;
  score_runs(a, k, st);
  for (int r = 0; r < tile.runs; r++) {
    const int64_t first = tile.first + tile.run[r].first, count = tile.run[r].last - tile.run[r].first;
    dot_keys<false>(v + first * a.v.stride_t, a.v.stride_t, count, st.block.packed_grad,
                    {st.ds + tile.run[r].first * kBackwardRows, kBackwardRows, kPanel}, nullptr);
  }
  const bool returned = a.grad_weights.data;
  if (returned)
    read_tensor(a.grad_weights, st.adjust, tile, kBackwardRows,
                [&](int lane, int64_t j, Vec x) { store(st.dp + j * kBackwardRows + lane, x); });
  const float factor = of_scores ? 1.0f : a.scale;
  if (a.extras) adjusted_probabilities(factor, of_scores, returned, st);
  else plain_probabilities(factor, st);
}

}  // namespace
}  // namespace mmha

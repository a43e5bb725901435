// Gradients of what is added to the scores, in passes of their own: two products a tile instead of backward's five, but
// each number is summed by one task in one order, so that the bits depend neither on threads nor on how the tensor is
// broadcast over batch, heads, rows or keys.
#pragma once
#include "probabilities.h"

namespace mmha {
namespace {

// G of one tile of head h in st.ds; false where no pair is visible. The block must be loaded.
template <class E>
static inline bool score_gradient(const BackwardArgs& a, int64_t b, int64_t h, int64_t tile, BackwardState& st) {
  const int64_t kv = h / (a.size.heads / a.size.kv_heads);
  RowWalk walk(a.plan, st.block.plan_row, st.block.count, kBackwardKeys);
  if (!walk.only(tile * kBackwardKeys, st.tile)) return false;
  // Lanes beyond the last row hold 0 * exp(anything): nobody else reads them, but here all lanes are summed.
  if (st.block.count < kBackwardRows) st.tile.spell_out((int)st.block.count);
  probabilities(a, at<const E>(a.k, b, kv), at<const E>(a.v, b, kv), true, st);
  return true;
}

// strip[kBackwardKeys - 1 - j + i] += G of row i and key j over all tiles with 2 * tile - block == distance: they hold
// the same values of key - position.
template <class E>
static void strip_gradient(const BackwardArgs& a, int64_t b, int64_t h, int64_t distance, float* strip,
                           float* scratch) {
  const Sizes& s = a.size;
  const int64_t blocks = (s.q_len + kBackwardRows - 1) / kBackwardRows;
  const int64_t tiles = (s.k_len + kBackwardKeys - 1) / kBackwardKeys;
  for (int u = 0; u < kStrip; u++) strip[u] = 0.0f;
  BackwardState st;
  start_state<E>(s, scratch, 0, st);
  for (int64_t tile = max64(0, (distance + 1) / 2); tile < tiles && 2 * tile - distance < blocks; tile++) {
    if (2 * tile < distance) continue;
    load_block<E>(a, b, h, 2 * tile - distance, st);
    if (!score_gradient<E>(a, b, h, tile, st)) continue;
    float* last = strip + (kBackwardKeys - 1 - (st.tile.first - tile * kBackwardKeys));
    for_each_vector(st.tile, kBackwardRows, [&](int lane, int64_t j) {
      float* to = last - j + lane;
      store(to, add(load(to), load(st.ds + j * kBackwardRows + lane)));
    });
  }
}

// Sums of G over all that share an element of the additive tensor's gradient, for its `group` (batch row and head), a
// block of its rows and a tile of its keys; block or tile is -1 where that dimension is broadcast.
template <class E>
static void additive_gradient(const BackwardArgs& a, const AdditiveGradient& to, int64_t group, int64_t block,
                              int64_t tile, float* scratch) {
  const Sizes& s = a.size;
  const int64_t blocks = (s.q_len + kBackwardRows - 1) / kBackwardRows;
  const int64_t tiles = (s.k_len + kBackwardKeys - 1) / kBackwardKeys;
  const int64_t own_b = group / to.heads, own_h = group % to.heads;
  BackwardState st;
  start_state<E>(s, scratch, 0, st);
  alignas(64) float sums[kBackwardKeys * kBackwardRows] = {};
  for (int64_t b = to.batch == 1 ? 0 : own_b; b < (to.batch == 1 ? s.batch : own_b + 1); b++)
    for (int64_t h = to.heads == 1 ? 0 : own_h; h < (to.heads == 1 ? s.heads : own_h + 1); h++)
      for (int64_t q = max64(block, 0); q < (block < 0 ? blocks : block + 1); q++) {
        load_block<E>(a, b, h, q, st);
        for (int64_t t = max64(tile, 0); t < (tile < 0 ? tiles : tile + 1); t++) {
          if (!score_gradient<E>(a, b, h, t, st)) continue;
          float* first = sums + (st.tile.first - t * kBackwardKeys) * kBackwardRows;
          for_each_vector(st.tile, kBackwardRows, [&](int lane, int64_t j) {
            const int64_t n = j * kBackwardRows + lane;
            store(first + n, add(load(first + n), load(st.ds + n)));
          });
        }
      }
  const int64_t row = max64(block, 0) * kBackwardRows, key = max64(tile, 0) * kBackwardKeys;
  const int64_t rows = block < 0 ? 1 : min64(kBackwardRows, to.q_len - row);
  const int64_t keys = tile < 0 ? 1 : min64(kBackwardKeys, to.k_len - key);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < keys; j++) {
      float sum = 0.0f;
      for (int64_t x = tile < 0 ? 0 : j; x < (tile < 0 ? kBackwardKeys : j + 1); x++)
        for (int64_t y = block < 0 ? 0 : i; y < (block < 0 ? kBackwardRows : i + 1); y++)
          sum += sums[x * kBackwardRows + y];
      to.data[(group * to.q_len + row + i) * to.k_len + key + j] = sum;
    }
}

}  // namespace
}  // namespace mmha

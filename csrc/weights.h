// The weights, for a caller who wants to see them: P = exp(S - lse), written row by row where it is visible.
//
// The one result of size Tq x Tk. It costs one product a tile, as much as the tile's scores, and its own memory once.
#pragma once
#include "probabilities.h"

namespace mmha {
namespace {

// The tile's scores become weights, exactly 0 where hidden.
static inline void weigh(BackwardState& st) {
  Tile& tile = st.tile;
  if (st.adjust.scores()) adjust_scores(st.adjust, tile, {st.p, kBackwardRows, kPanel}, kBackwardRows, nullptr);
  for_each_vector(tile, kBackwardRows, [&](int lane, int64_t j) {
    float* at = st.p + j * kBackwardRows + lane;
    const Vec p = exp2(sub(load(at), load(st.block.lse + lane)));
    store(at, tile.is_mixed(tile.first + j) ? select(lanes_of(tile.seen[j], lane), p, zero()) : p);
  });
}

template <class E>
static void weights_block(const BackwardArgs& a, const Tensor& out, int64_t b, int64_t h, int64_t block,
                          float* scratch) {
  const E* k = at<const E>(a.k, b, h / (a.size.heads / a.size.kv_heads));
  BackwardState st;
  start_state<E>(a.size, scratch, 0, st);
  load_queries<E>(a, b, h, block, st);
  RowWalk walk(a.plan, st.block.plan_row, st.block.count, kBackwardKeys);
  while (walk.next(st.tile)) {
    score_runs(a, k, st);
    weigh(st);
    E* to = at<E>(out, b, h, block * kBackwardRows) + st.tile.first;
    for (int64_t lane = 0; lane < st.block.count; lane += kLanes)
      for (int r = 0; r < st.tile.runs; r++)
        for (int64_t j = st.tile.run[r].first; j < st.tile.run[r].last; j += kLanes) {
          const int n = (int)min64(kLanes, st.tile.run[r].last - j);
          Vec x[kLanes];
          for (int i = 0; i < kLanes; i++) x[i] = i < n ? load(st.p + (j + i) * kBackwardRows + lane) : zero();
          transpose(x);
          for (int64_t i = 0; i < min64(kLanes, st.block.count - lane); i++)
            store_part(to + (lane + i) * out.stride_t + j, x[i], n);
        }
  }
}

}  // namespace
}  // namespace mmha

// Blocks of at most kLanes rows (a few queries against many keys), where most lanes of forward.h would idle.
//
//   S[i, j] = sum_d Q[i, d] * K[d, j]     lanes are keys: a panel of K is transposed, then every row reads it
//   softmax                               as in forward.h, S transposed once, in one vector of rows
//   O[i, d] = sum_j P[i, j] * V[j, d]     lanes are columns of V, which is read once
//
// Every number is the same chain of FMAs as in forward.h, so the bits are the same: a token that is decoded alone
// equals itself in a whole prefill. Query heads that share keys and values are rows of one block, so K and V are read
// once.
#pragma once
#include "product.h"
#include "softmax.h"

namespace mmha {
namespace {

// Which rows stand in the lanes of a block: `per_head` rows of head h from `row` on, then those of head h + 1.
struct Place {
  int64_t b, h, row, count, per_head;

  int64_t head(int64_t lane) const { return h + lane / per_head; }
  int64_t query(int64_t lane) const { return row + lane % per_head; }
};

template <class E>
static inline bool is_few(const Place& at) {
  return !kPairs<E> && at.count <= kLanes;
}

// Q as it is, times `factor`, to packed[row][D].
template <class E>
static inline void start_few(const ForwardArgs& a, const Place& where, ForwardState& st) {
  const int64_t dim = a.size.head_dim, wide = wide_width(a.size.value_dim);
  st.few.rows = (int)where.count;
  for (int64_t i = 0; i < where.count; i++) {
    const RowView row = wide_rows(at<const E>(a.q, where.b, where.head(i), where.query(i)), 0, 1, dim, st.few.scores);
    for (int64_t d = 0; d < dim; d++) st.packed[i * dim + d] = row.data[d] * st.q.factor;
  }
  for (int64_t i = 0; i < where.count * wide; i++) st.few.out[i] = 0.0f;
}

// Scores of a run of keys, in the layout of forward.h.
template <class E>
static inline void few_scores(const E* k, int64_t stride, const Run& run, ForwardState& st) {
  const int64_t dim = st.q.width;
  for (int64_t j = run.first; j < run.last; j += kPanel) {
    pack_transposed(k + j * stride, stride, min64(kPanel, run.last - j), dim, 1.0f, 1, st.few.keys);
    for (int r = 0; r < st.few.rows; r += kKeyRows) {
      const int n = st.few.rows - r < kKeyRows ? st.few.rows - r : kKeyRows;
      with_rows<kKeyRows>(n, [&](auto tag) {
        dot_tile<decltype(tag)::count, false>(st.packed + r * dim, dim, st.few.keys, dim,
                                              st.few.scores + r * kFewStride + j, kFewStride, nullptr);
      });
    }
  }
  pack_transposed(st.few.scores + run.first, kFewStride, st.few.rows, run.last - run.first, 1.0f, 1,
                  st.p + run.first * kPanel);
}

// O = O * rescale + P V of the tile; v is the row of its first key. A value that is not finite meets only the rows that
// see it, for 0 * inf is NaN.
template <class E>
static inline void add_few_values(const E* v, int64_t stride, int64_t width, const Tile& tile, ForwardState& st) {
  const int64_t wide = wide_width(width);
  for (int i = 0; i < st.few.rows; i++)
    for (int64_t d = 0; d < width; d += kLanes) {
      float* at = st.few.out + i * wide + d;
      store(at, mul(load(at), set1(st.rescale[i])));
    }
  for (int r = 0; r < tile.runs; r++)
    for (int64_t j = tile.run[r].first, next; j < tile.run[r].last; j = next) {
      const auto poisoned = [&](int64_t key) {
        return tile.is_mixed(tile.first + key) && !all_finite(v + key * stride, 0, 1, width);
      };
      const bool poison = poisoned(j);
      next = j + 1;
      while (next < tile.run[r].last && next - j < kWideRows && !poison && !poisoned(next)) next++;
      const RowView rows = wide_rows(v + j * stride, stride, next - j, width, st.wide);
      if (!poison) {
        outer({st.p + j * kPanel, 1, kPanel, st.few.rows, rows.data, rows.stride, next - j, st.few.out, wide, width});
        continue;
      }
      for (int i = 0; i < st.few.rows; i++)
        if (tile.seen[j] >> i & 1) add_scaled_row(st.p[j * kPanel + i], rows.data, st.few.out + i * wide, width);
    }
}

// The chunk's output in the layout of forward.h; the next chunk starts at 0.
static inline void end_few_chunk(int64_t width, ForwardState& st) {
  const int64_t wide = wide_width(width);
  pack_transposed(st.few.out, wide, st.few.rows, width, 1.0f, 1, st.chunk.out);
  for (int64_t i = 0; i < st.few.rows * wide; i++) st.few.out[i] = 0.0f;
}

}  // namespace
}  // namespace mmha

// Blocks of at most kLanes rows (a few queries against many keys), where most lanes of forward.h would idle.
//
//   S[i, j] = sum_d Q[i, d] * K[d, j]     lanes are keys: a panel of K is transposed, then every row reads it
//   softmax                               along the keys where all rows see all of the tile and nothing is added;
//                                         else as in forward.h, S transposed once, in one vector of rows
//   O[i, d] = sum_j P[i, j] * V[j, d]     lanes are columns of V, which is read once
//
// Every number is the same chain of FMAs as in forward.h, so the bits are the same: a token that is decoded alone
// equals itself in a whole prefill. Query heads that share keys and values are rows of one block, so K and V are read
// once.
#pragma once
#include "product.h"
#include "values.h"

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

// Scores of a run of keys; k is the row of its first.
template <class E>
static inline void few_scores(const E* k, int64_t stride, const Run& run, ForwardState& st) {
  const int64_t dim = st.q.width;
  for (int64_t j = run.first; j < run.last; j += kPanel) {
    pack_transposed(k + (j - run.first) * stride, stride, min64(kPanel, run.last - j), dim, 1.0f, 1, st.few.keys);
    for (int r = 0; r < st.few.rows; r += kKeyRows) {
      const int n = st.few.rows - r < kKeyRows ? st.few.rows - r : kKeyRows;
      with_rows<kKeyRows>(n, [&](auto tag) {
        dot_tile<decltype(tag)::count, false>(st.packed + r * dim, dim, st.few.keys, dim,
                                              st.few.scores + r * kFewStride + j, kFewStride, nullptr);
      });
    }
  }
}

// The running maximum of each row with `count` scores; what stands beyond them becomes -inf up to a whole vector.
static inline void few_tops(int64_t count, ForwardState& st) {
  Vec top[kLanes];
  for (int i = 0; i < kLanes; i++) top[i] = set1(st.chunk.top[i]);
  for (int i = 0; i < st.few.rows; i++) {
    float* s = st.few.scores + i * kFewStride;
    for (int64_t j = count; j < round_up(count, kLanes); j++) s[j] = -__builtin_inff();
    for (int64_t j = 0; j < count; j += kLanes) top[i] = max(top[i], load(s + j));
  }
  transpose(top);
  for (int n = kLanes / 2; n > 0; n /= 2)
    for (int i = 0; i < n; i++) top[i] = max(top[i], top[i + n]);
  store(st.tile_top, top[0]);
}

// Lines of memory that are asked for with each vector of powers: about as many as come in that time.
constexpr int64_t kLinesAPower = 6;

// The scores of R rows become exp2(score - top), and sum[i] theirs, key by key. An addition waits for the one before
// and for its number to come back from where it was stored: so the sums go on beside later powers, two vectors behind.
// Unless `ahead` is nullptr, memory from there on is asked for meanwhile, for nothing else reads it here.
template <int R>
static inline void few_powers(float* s, int64_t count, const float* top, float* sum, const char* ahead) {
  constexpr int64_t kBehind = 2 * kLanes;
  float total[R] = {};
  const auto add_keys = [&](int64_t first, int64_t last) {
    for (int64_t j = first; j < last; j++)
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) total[r] += s[r * kFewStride + j];
  };
  for (int64_t j = 0; j < count; j += kLanes) {
    for (int64_t y = 0; ahead && y < kLinesAPower; y++, ahead += kLine) ask(ahead);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) store(s + r * kFewStride + j, exp2(sub(load(s + r * kFewStride + j), set1(top[r]))));
    if (j >= kBehind) add_keys(j - kBehind, j - kBehind + kLanes);
  }
  add_keys(max64(0, round_up(count, kLanes) - kBehind), count);
  for (int r = 0; r < R; r++) sum[r] = total[r];
}

// softmax_tile for a tile of `count` keys that every row sees, along the keys.
static inline void few_softmax(int64_t count, const char* ahead, ForwardState& st) {
  few_tops(count, st);
  const Vec hidden = set1(-__builtin_inff());
  const Vec old = load(st.chunk.top), found = load(st.tile_top);
  const Vec top = select(equal(found, hidden), zero(), found), rescale = exp2(sub(old, top));
  float tops[kLanes], sums[kLanes] = {};
  store(tops, top);
  store(st.chunk.top, found);
  store(st.rescale, rescale);
  for (int r = 0; r < st.few.rows; r += 4)
    with_rows<4>(st.few.rows - r < 4 ? st.few.rows - r : 4, [&](auto tag) {
      few_powers<decltype(tag)::count>(st.few.scores + r * kFewStride, count, tops + r, sums + r, r ? nullptr : ahead);
    });
  store(st.chunk.sum, add(mul(load(st.chunk.sum), rescale), load(sums)));
}

// The same with rows in the lanes, for whatever is hidden, bent, added or dropped.
static inline void few_softmax_lanes(Tile& tile, ForwardState& st) {
  for (int r = 0; r < tile.runs; r++) {
    const Run& run = tile.run[r];
    pack_transposed(st.few.scores + run.first, kFewStride, st.few.rows, run.last - run.first, 1.0f, 1,
                    st.p + run.first * kPanel);
  }
  if (st.adjust.scores()) adjust_scores(st.adjust, tile, {st.p, kPanel, kForwardKeys * kPanel}, kLanes, nullptr);
  hide_tile<1>(tile, 0, st);
  softmax_tile<1>(tile, 0, st);
  if (st.adjust.drops()) drop_tile(tile, st);
}

// O += P V of one run; v is the row of its first key. Unless `ahead` is nullptr, memory from there on is asked for
// meanwhile, as much as is read. A value that is not finite meets only the rows that see it, for 0 * inf is NaN.
template <class E>
static inline void add_few_values(const E* v, int64_t stride, int64_t width, const Run& run, const Tile& tile,
                                  const E* ahead, ForwardState& st) {
  // Rows of V stay in L1 while O's columns pass over them.
  const int64_t block = max64(16, min64(32, 8192 / (int64_t)(width * sizeof(E))));
  const int64_t wide = wide_width(width);
  const bool full = tile.is_full();
  const auto row = [&](int64_t j) { return v + (j - run.first) * stride; };
  for (int64_t j = run.first, next; j < run.last; j = next) {
    const bool poison = !full && is_poison(row(j), width, tile, j);
    const int64_t most = min64(run.last, j + block);
    next = full ? most : j + 1;
    while (next < most && !poison && !is_poison(row(next), width, tile, next)) next++;
    const Few& few = st.few;
    const float* p = few.weights + j * few.weight_key;
    if (!poison) {
      outer(ProductOf<E>{p, few.weight_row, few.weight_key, few.rows, row(j), stride, next - j, few.out, wide, width,
                         ahead ? ahead + (j - run.first) * width : nullptr});
      continue;
    }
    for (int i = 0; i < few.rows; i++)
      if (tile.seen[j] >> i & 1) add_scaled_row(p[i * few.weight_row], row(j), few.out + i * wide, width);
  }
}

// One tile of a block of few rows.
template <class S>
static inline void attend_few(const S& source, Tile& tile, const Tile* next, ForwardState& st) {
  const bool along_keys = tile.is_full() && !st.adjust.scores() && !st.adjust.drops();
  for (int r = 0; r < tile.runs; r++) source.few_scores(tile, tile.run[r], st);
  st.few.weights = along_keys ? st.few.scores : st.p;
  st.few.weight_row = along_keys ? kFewStride : 1;
  st.few.weight_key = along_keys ? 1 : kPanel;
  if (along_keys) few_softmax(tile.last - tile.first, source.ahead_of_powers(tile, next, st), st);
  else few_softmax_lanes(tile, st);
  for (int i = 0; i < st.few.rows; i++)
    for (int64_t d = 0; d < source.width; d += kLanes) {
      float* at = st.few.out + i * wide_width(source.width) + d;
      store(at, mul(load(at), set1(st.rescale[i])));
    }
  for (int r = 0; r < tile.runs; r++) source.add_few(tile, tile.run[r], next, st);
}

// The chunk's output in the layout of forward.h; the next chunk starts at 0.
static inline void end_few_chunk(int64_t width, ForwardState& st) {
  const int64_t wide = wide_width(width);
  pack_transposed(st.few.out, wide, st.few.rows, width, 1.0f, 1, st.chunk.out);
  for (int64_t i = 0; i < st.few.rows * wide; i++) st.few.out[i] = 0.0f;
}

}  // namespace
}  // namespace mmha

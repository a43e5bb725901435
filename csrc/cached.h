// Forward attention of float32 queries over a cache (cache.h): the same sums in the same order as over rows in memory,
// so a token that is decoded through a float32 cache gets the bits of a whole forward pass.
//
//   few rows    a group of 16 keys is one or a few vectors: S[i, j] takes one load and one FMA per row, no transpose
//   many rows   keys are unpacked 64 at a time into rows that stay in L1, and then go the way of forward.h
//   values      rows already; widened in registers (few) or 64 at a time (many)
//
// int8: the products are with the integers; a score is then multiplied by its key's scale, a probability by its
// value's. A run of keys is walked in pieces that lie side by side: a page, a turn of the ring, a beam's row.
#pragma once
#include "cache.h"
#include "forward.h"

namespace mmha {
namespace {

constexpr int kGroupVectors = (int)kGroup / kLanes;
// Accumulators of few rows: enough chains to hide an FMA's latency.
constexpr int kGroupTiles = kLanes == 16 ? 24 : 12;

// Scores of R rows with N whole groups: out[r][16 n ..] = sum_d q[r][d] * keys[n][d][..]. Narrow keys are asked for two
// turns ahead: they come slowly enough, for all the arithmetic between them, that hardware does not look so far.
template <int R, int N, class C>
MMHA_INLINE void group_tile(const float* q, int64_t dim, const C* keys, float* out) {
  Vec acc[R][N][kGroupVectors];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 16
    for (int n = 0; n < N; n++)
#pragma GCC unroll 4
      for (int x = 0; x < kGroupVectors; x++) acc[r][n][x] = zero();
  for (int64_t d = 0; d < dim; d++) {
    Vec y[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) y[r] = set1(q[r * dim + d]);
#pragma GCC unroll 16
    for (int n = 0; n < N; n++)
#pragma GCC unroll 4
      for (int x = 0; x < kGroupVectors; x++) {
        if (!kIsFloat<C> && x == 0) __builtin_prefetch(keys + ((n + 2 * N) * dim + d) * kGroup);
        const Vec k = load(keys + (n * dim + d) * kGroup + x * kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) acc[r][n][x] = fma(y[r], k, acc[r][n][x]);
      }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 16
    for (int n = 0; n < N; n++)
#pragma GCC unroll 4
      for (int x = 0; x < kGroupVectors; x++) store(out + r * kFewStride + n * kGroup + x * kLanes, acc[r][n][x]);
}

// Scores of R rows with `count` whole groups, some groups at a time where few rows leave registers.
template <int R, class C>
static inline void group_scores(const float* q, int64_t dim, const C* keys, int64_t count, float* out) {
  constexpr int kMost = kGroupTiles / (R * kGroupVectors) < 1 ? 1 : kGroupTiles / (R * kGroupVectors);
  int64_t n = 0;
  for (; n + kMost <= count; n += kMost) group_tile<R, kMost>(q, dim, keys + n * dim * kGroup, out + n * kGroup);
  for (; n < count; n++) group_tile<R, 1>(q, dim, keys + n * dim * kGroup, out + n * kGroup);
}

// The same for all of a block's rows.
template <class C>
MMHA_APART void few_group_scores(const C* keys, int64_t count, const ForwardState& st, float* out) {
  constexpr int kRows = kKeyRows < 6 ? kKeyRows : 6;
  const int64_t dim = st.q.width;
  // Four rows alone keep too few chains going; twice two rows do, unless each pass must widen the keys anew.
  const int step = st.few.rows == 4 && kIsFloat<C> ? 2 : kRows;
  for (int r = 0; r < st.few.rows; r += step)
    with_rows<kRows>(st.few.rows - r < step ? st.few.rows - r : step, [&](auto tag) {
      group_scores<decltype(tag)::count>(st.packed + r * dim, dim, keys, count, out + r * kFewStride);
    });
}

// Keys of `count` neighbouring slots, unpacked into rows of float32.
template <class C>
static inline void unpack_keys(const C* groups, int64_t slot, int64_t count, int64_t dim, float* rows, int64_t stride) {
  for (int64_t i = 0; i < count;) {
    const int64_t first = (slot + i) % kGroup, n = min64(kGroup - first, count - i);
    const C* group = groups + (slot + i) / kGroup * dim * kGroup;
    for (int64_t lane = first / kLanes * kLanes; lane < first + n; lane += kLanes)
      for (int64_t d = 0; d < dim; d += kLanes) {
        Vec r[kLanes];
        for (int x = 0; x < kLanes; x++) r[x] = d + x < dim ? load(group + (d + x) * kGroup + lane) : zero();
        transpose(r);
        for (int64_t x = max64(0, first - lane); x < kLanes && lane + x < first + n; x++)
          store(rows + (i + lane + x - first) * stride + d, r[x]);
      }
    i += n;
  }
}

// Keys and values of one key/value head of row b of a cache.
template <class C>
struct CachedRows {
  const CacheView& cache;
  int64_t b, kv, dim, width;
  static constexpr bool kScaled = sizeof(C) == 1;  // what int8 stands for depends on the token

  struct Piece {
    const C *keys, *values;  // the block's first group, the first value
    const float *key_scales, *value_scales;
    int64_t slot, count;
  };
  Piece piece(int64_t position, int64_t last) const {
    const Slots at = find_slots(cache, b, position, last);
    const int64_t head = at.block * cache.kv_heads + kv, scale = head * cache.groups * kGroup + at.slot;
    return {static_cast<const C*>(cache.keys) + head * cache.groups * dim * kGroup,
            static_cast<const C*>(cache.values) + (head * cache.slots + at.slot) * width,
            kScaled ? cache.key_scales + scale : nullptr,
            kScaled ? cache.value_scales + scale : nullptr,
            at.slot,
            at.count};
  }
  // f(piece, the run of the tile's keys in it)
  template <class F>
  void for_each_piece(const Tile& tile, const Run& run, int64_t most, F f) const {
    for (int j = run.first; j < run.last;) {
      const Piece p = piece(tile.first + j, min64(tile.first + run.last, tile.first + j + most));
      f(p, Run{j, j + (int)p.count});
      j += (int)p.count;
    }
  }

  template <bool Top>
  void dot(const Tile& tile, const Run& run, ForwardState& st, float* top) const {
    const int64_t stride = wide_width(dim);
    for_each_piece(tile, run, 64, [&](const Piece& p, const Run& part) {
      unpack_keys(p.keys, p.slot, p.count, dim, st.wide, stride);
      const Lanes to = {st.p + part.first * kPanel, kPanel, kForwardKeys * kPanel};
      dot_keys<Top && !kScaled>(st.wide, stride, p.count, st.q, to, top);
      if (kScaled) scale_lanes<Top>(p.key_scales, part, st, top);
    });
  }

  void add(const Tile& tile, ForwardState& st) const {
    const float* rescale = st.rescale;
    for (int r = 0; r < tile.runs; r++)
      for_each_piece(tile, tile.run[r], kForwardKeys, [&](const Piece& p, const Run& part) {
        if (kScaled) scale_lanes<false>(p.value_scales, part, st, nullptr);
        add_run_values(p.values, width, width, part, tile, rescale, st);
      });
  }

  void few_scores(const Tile& tile, const Run& run, ForwardState& st) const {
    for_each_piece(tile, run, kForwardKeys, [&](const Piece& p, const Run& part) {
      const C* group = p.keys + p.slot / kGroup * dim * kGroup;
      const int64_t skip = p.slot % kGroup;
      float* to = st.few.scores + part.first;
      int64_t done = 0;
      if (skip) {  // the group's first keys are others
        float whole[kLanes * kFewStride];
        few_group_scores(group, 1, st, whole);
        done = min64(kGroup - skip, p.count);
        for (int i = 0; i < st.few.rows; i++)
          for (int64_t x = 0; x < done; x++) to[i * kFewStride + x] = whole[i * kFewStride + skip + x];
        group += dim * kGroup;
      }
      if (done < p.count) few_group_scores(group, (p.count - done + kGroup - 1) / kGroup, st, to + done);
      if (kScaled) scale_rows(p.key_scales, {part.first, part.last}, st.few.scores, kFewStride, 1, st.few.rows);
    });
  }

  void add_few(const Tile& tile, const Run& run, ForwardState& st) const {
    for_each_piece(tile, run, kForwardKeys, [&](const Piece& p, const Run& part) {
      if (kScaled) scale_rows(p.value_scales, part, st.few.weights, st.few.weight_row, st.few.weight_key, st.few.rows);
      add_few_values(p.values, width, width, part, tile, st);
    });
  }

 private:
  template <bool Top>
  static void scale_lanes(const float* scales, const Run& part, ForwardState& st, float* top) {
    for (int panel = 0; panel < st.q.panels; panel++)
      for (int lane = 0; lane < kPanel; lane += kLanes) {
        Vec most = Top ? load(top + panel * kPanel + lane) : zero();
        for (int64_t j = part.first; j < part.last; j++) {
          float* at = st.p + (panel * kForwardKeys + j) * kPanel + lane;
          const Vec x = mul(load(at), set1(scales[j - part.first]));
          store(at, x);
          if (Top) most = max(most, x);
        }
        if (Top) store(top + panel * kPanel + lane, most);
      }
  }
  static void scale_rows(const float* scales, const Run& part, float* x, int64_t row, int64_t key, int rows) {
    for (int i = 0; i < rows; i++)
      for (int64_t j = part.first; j < part.last; j++) x[i * row + j * key] *= scales[j - part.first];
  }
};

// As a kernel of 16-bit rows: with room for widened ones.
static int64_t cached_scratch(const Sizes& s) { return forward_scratch<f16>(s); }

template <class C>
static inline CachedRows<C> cached_rows(const ForwardArgs& a, const Place& where) {
  return {*a.cache, where.b, where.h / (a.size.heads / a.size.kv_heads), a.size.head_dim, a.size.value_dim};
}

template <class C>
static void cached_block(const ForwardArgs& a, int64_t b, int64_t h, int64_t block, float* scratch) {
  attend_block<float>(a, place_of(a, b, h, block), scratch, [&](const Place& at) { return cached_rows<C>(a, at); });
}

template <class C>
static void cached_chunk(const ForwardArgs& a, int64_t b, int64_t h, int64_t block, int64_t chunk, float* part,
                         float* scratch) {
  attend_chunk<float>(a, place_of(a, b, h, block), chunk, part, scratch,
                      [&](const Place& at) { return cached_rows<C>(a, at); });
}

// x as C, every `step`-th number of `to`.
template <class C>
static inline void narrow_row(const float* x, int64_t width, C* to, int64_t step) {
  for (int64_t d = 0; d < width; d += kLanes) {
    const int n = (int)min64(kLanes, width - d);
    C t[kLanes];
    store(t, load_part(x + d, n));
    for (int i = 0; i < n; i++) to[(d + i) * step] = t[i];
  }
}

// scale = max |x| / 127; x = scale * int8, rounded to the nearest.
static inline float quantise_row(const float* x, int64_t width, int8_t* to, int64_t step) {
  float most = 0.0f;
  for (int64_t d = 0; d < width; d++) most = most > __builtin_fabsf(x[d]) ? most : __builtin_fabsf(x[d]);
  const float scale = most / 127.0f;
  for (int64_t d = 0; d < width; d++)
    to[d * step] = scale > 0.0f ? (int8_t)__builtin_nearbyintf(x[d] / scale) : (int8_t)0;
  return scale;
}

template <class C>
static void write_token(const CacheView& c, int64_t b, int64_t kv, int64_t position, const float* key,
                        const float* value) {
  const auto at = CachedRows<C>{c, b, kv, c.head_dim, c.value_dim}.piece(position, position + 1);
  C* to_key = const_cast<C*>(at.keys) + at.slot / kGroup * c.head_dim * kGroup + at.slot % kGroup;
  C* to_value = const_cast<C*>(at.values);
  if constexpr (sizeof(C) == 1) {
    *const_cast<float*>(at.key_scales) = quantise_row(key, c.head_dim, to_key, kGroup);
    *const_cast<float*>(at.value_scales) = quantise_row(value, c.value_dim, to_value, 1);
  } else {
    narrow_row(key, c.head_dim, to_key, kGroup);
    narrow_row(value, c.value_dim, to_value, 1);
  }
}

template <class C>
static void read_token(const CacheView& c, int64_t b, int64_t kv, int64_t position, float* key, float* value) {
  const auto at = CachedRows<C>{c, b, kv, c.head_dim, c.value_dim}.piece(position, position + 1);
  const C* from = at.keys + at.slot / kGroup * c.head_dim * kGroup + at.slot % kGroup;
  const auto wide = [](const C* x) {
    float lane[kLanes];
    store(lane, load_part(x, 1));
    return lane[0];
  };
  for (int64_t d = 0; d < c.head_dim; d++) key[d] = wide(from + d * kGroup) * (at.key_scales ? *at.key_scales : 1.0f);
  for (int64_t d = 0; d < c.value_dim; d++)
    value[d] = wide(at.values + d) * (at.value_scales ? *at.value_scales : 1.0f);
}

}  // namespace
}  // namespace mmha

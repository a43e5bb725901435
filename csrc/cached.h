// Forward attention of float32 queries over a cache (cache.h): the same sums in the same order as over rows in memory,
// so a token that is decoded through a float32 cache gets the bits of a whole forward pass.
//
//   few rows    a group of 16 keys is one or a few vectors: S[i, j] takes one load and one FMA per row, no transpose
//   many rows   the same for a panel of rows and one group, whose 16 x 16 scores are then transposed for forward.h
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
constexpr int kTileRows = kKeyRows < 6 ? kKeyRows : 6;

// How many of `rows` go next, at most `most`, so that no pass has much fewer than another: few chains do not hide an
// FMA's latency.
static inline int even_part(int rows, int most) { return rows / ((rows + most - 1) / most); }

// A block's queries: number d of row r at data[r * row + d * step].
struct Queries {
  const float* data;
  int64_t row, step;
};

// Scores of R rows with N neighbouring vectors of keys: out[r][j] = sum_d q[r][d] * key j [d]. `first` counts vectors
// from the group at `keys`. Unless `ahead` is nullptr, memory from there on is asked for, as much as is read here.
template <int R, int N, class C>
MMHA_INLINE void key_tile(const Queries& q, int64_t dim, const C* keys, int64_t first, float* out, int64_t stride,
                          const char* ahead) {
  constexpr int64_t kSlice = N * kLanes * (int64_t)sizeof(C);
  const C* from[N];
#pragma GCC unroll 16
  for (int n = 0; n < N; n++)
    from[n] = keys + (first + n) / kGroupVectors * dim * kGroup + (first + n) % kGroupVectors * kLanes;
  Vec acc[R][N];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 16
    for (int n = 0; n < N; n++) acc[r][n] = zero();
  for (int64_t d = 0; d < dim; d++) {
    if (ahead)
#pragma GCC unroll 16
      for (int64_t y = 0; y < kSlice; y += kLine) ask(ahead + d * kSlice + y);
    Vec k[N];
#pragma GCC unroll 16
    for (int n = 0; n < N; n++) k[n] = load(from[n] + d * kGroup);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const Vec y = set1(q.data[r * q.row + d * q.step]);
#pragma GCC unroll 16
      for (int n = 0; n < N; n++) acc[r][n] = fma(y, k[n], acc[r][n]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 16
    for (int n = 0; n < N; n++) store(out + r * stride + (first + n) * kLanes, acc[r][n]);
}

// Vectors of keys that `rows` rows take at a time. Memory is read from one end to the other, as hardware foresees it,
// where few vectors have enough chains of FMAs for what memory gives meanwhile: one group where several rows share a
// key, two vectors of 16 bits; otherwise as many as there are registers for.
template <class C>
constexpr int tile_vectors(int rows) {
  if (sizeof(C) == 2 && kGroupVectors == 1) return 2;
  if (sizeof(C) > 1 && rows > 2) return kGroupVectors;
  int n = 1;
  while (n < 8 && 2 * n * rows <= kGroupTiles) n *= 2;
  return n;
}

// Scores of all of a block's rows with `count` whole groups; the first pass asks for what is `ahead`.
template <class C>
MMHA_APART void few_group_scores(const C* keys, int64_t count, const ForwardState& st, float* out, const char* ahead) {
  const int64_t dim = st.q.width, vectors = count * kGroupVectors;
  for (int r = 0, rows; r < st.few.rows; r += rows, ahead = nullptr) {
    rows = even_part(st.few.rows - r, kTileRows);
    with_rows<kTileRows>(rows, [&](auto tag) {
      constexpr int R = decltype(tag)::count, N = tile_vectors<C>(R);
      const Queries q = {st.packed + r * dim, dim, 1};
      float* to = out + r * kFewStride;
      const auto next = [&](int64_t v) { return ahead ? ahead + v * kLanes * dim * (int64_t)sizeof(C) : nullptr; };
      int64_t v = 0;
      for (; v + N <= vectors; v += N) key_tile<R, N>(q, dim, keys, v, to, kFewStride, next(v));
      for (; v < vectors; v++) key_tile<R, 1>(q, dim, keys, v, to, kFewStride, next(v));
    });
  }
}

// A whole group in float32.
static inline const float* wide_group(const float* group, int64_t, float*) { return group; }
template <class C>
static inline const float* wide_group(const C* group, int64_t dim, float* to) {
  for (int64_t at = 0; at < dim * kGroup; at += kLanes) store(to + at, load(group + at));
  return to;
}

// Scores of many rows with keys [skip, skip + count) of a group, rows in the lanes: those of its first key stand at
// `key` of the tile, times the group's `scales` unless nullptr. With Top, top becomes the maximum of itself and these.
template <bool Top>
MMHA_APART void group_lanes(const float* group, const float* scales, int64_t skip, int64_t count, int64_t key,
                            ForwardState& st, float* top) {
  for (int panel = 0; panel < st.q.panels; panel++) {
    const float* q = st.packed + panel * st.q.width * kPanel;
    float scores[kPanel * kGroup];
    for (int r = 0, rows; r < kPanel; r += rows) {
      constexpr int kMost = kGroupTiles / kGroupVectors < kPanel ? kGroupTiles / kGroupVectors : kPanel;
      rows = even_part(kPanel - r, kMost);
      with_rows<kMost>(rows, [&](auto tag) {
        key_tile<decltype(tag)::count, kGroupVectors>({q + r, 1, kPanel}, st.q.width, group, 0, scores + r * kGroup,
                                                      kGroup, nullptr);
      });
    }
    for (int lane = 0; lane < kPanel; lane += kLanes) {
      Vec most = Top ? load(top + panel * kPanel + lane) : zero();
      for (int64_t first = skip / kLanes * kLanes; first < skip + count; first += kLanes) {
        Vec r[kLanes];
        for (int x = 0; x < kLanes; x++) {
          r[x] = load(scores + (lane + x) * kGroup + first);
          if (scales) r[x] = mul(r[x], load(scales + first));
        }
        transpose(r);
        for (int64_t x = max64(0, skip - first); x < kLanes && first + x < skip + count; x++) {
          store(st.p + (panel * kForwardKeys + key + first + x - skip) * kPanel + lane, r[x]);
          if (Top) most = max(most, r[x]);
        }
      }
      if (Top) store(top + panel * kPanel + lane, most);
    }
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
    for_each_piece(tile, run, kForwardKeys, [&](const Piece& p, const Run& part) {
      for (int64_t done = 0, count; done < p.count; done += count) {
        const int64_t slot = p.slot + done, skip = slot % kGroup;
        count = min64(kGroup - skip, p.count - done);
        const float* group = wide_group(p.keys + slot / kGroup * dim * kGroup, dim, st.wide);
        group_lanes<Top>(group, kScaled ? p.key_scales + done - skip : nullptr, skip, count, part.first + done, st,
                         top);
      }
    });
  }

  void add(const Tile& tile, ForwardState& st) const {
    const float* rescale = st.rescale;
    for (int r = 0; r < tile.runs; r++)
      for_each_piece(tile, tile.run[r], kForwardKeys, [&](const Piece& p, const Run& part) {
        for (int panel = 0; kScaled && panel < st.q.panels; panel++)
          for (int lane = 0; lane < kPanel; lane += kLanes)
            scale_rows(p.value_scales, part, st.p + panel * kForwardKeys * kPanel + lane, 1, kPanel, kLanes);
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
        few_group_scores(group, 1, st, whole, nullptr);
        done = min64(kGroup - skip, p.count);
        for (int i = 0; i < st.few.rows; i++)
          for (int64_t x = 0; x < done; x++) to[i * kFewStride + x] = whole[i * kFewStride + skip + x];
        group += dim * kGroup;
      }
      if (done < p.count)
        few_group_scores(group, (p.count - done + kGroup - 1) / kGroup, st, to + done,
                         near(st) ? reinterpret_cast<const char*>(group) + kNear
                                  : reinterpret_cast<const char*>(p.values + done * width));
      if (kScaled) scale_rows(p.key_scales, part, st.few.scores, kFewStride, 1, st.few.rows);
    });
  }

  void add_few(const Tile& tile, const Run& run, const Tile* next, ForwardState& st) const {
    for_each_piece(tile, run, kForwardKeys, [&](const Piece& p, const Run& part) {
      if (kScaled) scale_rows(p.value_scales, part, st.few.weights, st.few.weight_row, st.few.weight_key, st.few.rows);
      const C* ahead = near(st) ? p.values + kNear / sizeof(C) : keys_ahead(part.first, next);
      if (ahead && !near(st) && in_one_run() && st.few.weights == st.few.scores) ahead += kAskedByPowers / sizeof(C);
      add_few_values(p.values, width, width, part, tile, ahead, st);
    });
  }

  // What to ask for during the softmax of a tile that all rows see: nothing where it might lie on another page.
  const char* ahead_of_powers(const Tile& tile, const Tile* next, const ForwardState& st) const {
    if (!in_one_run()) return nullptr;
    if (!near(st)) return reinterpret_cast<const char*>(keys_ahead(0, next));
    return reinterpret_cast<const char*>(piece(tile.first, tile.last).values) + kNear;
  }

 private:
  // Keys ask for the tile's values, the softmax for the first of the next tile's keys, and values for the others.
  // Several rows that share 16-bit numbers are busy with a tile for so long that its lines would have left L1 again:
  // there keys ask for keys and values for values, a little ahead, as long as they stand side by side.
  static constexpr int64_t kNear = 16 << 10, kAskedByPowers = kForwardKeys / kLanes * kLinesAPower * kLine;
  bool near(const ForwardState& st) const {
    return sizeof(C) == 2 && st.few.rows > 2 && st.few.rows <= kTileRows && in_one_run();
  }
  bool in_one_run() const { return !cache.table && !cache.beam; }

  // The next tile's keys behind its first `done`.
  const C* keys_ahead(int64_t done, const Tile* next) const {
    if (!next || next->first + done >= next->last) return nullptr;
    const Piece p = piece(next->first + done, next->last);
    return p.keys + p.slot / kGroup * dim * kGroup;
  }

  // A number a key, to scores or probabilities: rows whose keys stand side by side, or a vector of rows a key.
  static void scale_rows(const float* scales, const Run& part, float* x, int64_t row, int64_t key, int rows) {
    const int64_t count = part.last - part.first;
    x += part.first * key;
    if (key != 1) {
      for (int64_t j = 0; j < count; j++) store(x + j * key, mul(load(x + j * key), set1(scales[j])));
      return;
    }
    for (int i = 0; i < rows; i++, x += row) {
      int64_t j = 0;
      for (; j + kLanes <= count; j += kLanes) store(x + j, mul(load(x + j), load(scales + j)));
      for (; j < count; j++) x[j] *= scales[j];
    }
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
  for (int64_t d = 0; d < width; d++) {
    // Where the scale is subnormal it may be rounded down so far that the largest quotient leaves int8.
    const float n = scale > 0.0f ? __builtin_nearbyintf(x[d] / scale) : 0.0f;
    to[d * step] = (int8_t)(n > 127.0f ? 127.0f : n < -127.0f ? -127.0f : n);
  }
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

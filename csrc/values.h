// O += P V of one tile, with O transposed in memory and the queries in the lanes.
#pragma once
#include "softmax.h"

namespace mmha {
namespace {

// out[r][lane] = out[r][lane] * rescale[lane] + sum_j v[j][r] * p[j][lane] for R columns of v and one panel.
template <int R>
MMHA_INLINE void value_tile(const float* v, int64_t stride, const float* p, int64_t count, const float* rescale,
                            float* out) {
  Vec acc[R][kPanelVectors];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int x = 0; x < kPanelVectors; x++)
      acc[r][x] = mul(load(out + r * kPanel + x * kLanes), load(rescale + x * kLanes));
  for (int64_t j = 0; j < count; j++) {
    Vec w[kPanelVectors];
#pragma GCC unroll 4
    for (int x = 0; x < kPanelVectors; x++) w[x] = load(p + j * kPanel + x * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const Vec y = set1(v[j * stride + r]);
#pragma GCC unroll 4
      for (int x = 0; x < kPanelVectors; x++) acc[r][x] = fma(y, w[x], acc[r][x]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int x = 0; x < kPanelVectors; x++) store(out + r * kPanel + x * kLanes, acc[r][x]);
}

// Keys that one pass over O's columns adds: their values, 64 rows of V, stay in L1 while every column group reads them.
// (A whole tile would not: rows of V stand 4 * Dv bytes apart, and a power of two uses few of the cache's sets.)
constexpr int64_t kValueChunk = 64;

// Adds keys [first, last) of the tile to O, all of them finite or seen by all rows; v is the row of the first.
// `rescale` applies to what O holds.
template <class E>
MMHA_APART void add_values(const E* v, int64_t stride, int64_t width, int64_t first, int64_t last, const float* rescale,
                           ForwardState& st) {
  constexpr int64_t chunk = kIsFloat<E> || kWideRows > kValueChunk ? kValueChunk : kWideRows;
  for (int64_t j = first; j < last; j += chunk) {
    const int64_t keys = min64(chunk, last - j);
    const RowView rows = wide_rows(v + (j - first) * stride, stride, keys, width, st.wide);
    for (int64_t d = 0; d < width; d += kValueRows) {
      const int n = (int)(width - d < kValueRows ? width - d : kValueRows);
      with_rows<kValueRows>(n, [&](auto tag) {
        for (int p = 0; p < st.q.panels; p++)
          value_tile<decltype(tag)::count>(rows.data + d, rows.stride, st.p + (p * kForwardKeys + j) * kPanel, keys,
                                           (j == first ? rescale : kOnes) + p * kPanel,
                                           st.chunk.out + (p * width + d) * kPanel);
      });
    }
  }
}

// One key whose value is not finite: only the lanes that see it may touch it, for 0 * inf is NaN.
template <class E>
static inline void add_value_where_seen(const E* v, int64_t width, int64_t key, uint64_t rows, const float* rescale,
                                        ForwardState& st) {
  const RowView row = wide_rows(v, 0, 1, width, st.wide);
  for (int lane = 0; lane < st.q.panels * kPanel; lane += kLanes) {
    const int64_t panel = lane / kPanel, in_panel = lane % kPanel;
    const Vec p = load(st.p + (panel * kForwardKeys + key) * kPanel + in_panel);
    const Vec c = load(rescale + lane);
    for (int64_t d = 0; d < width; d++) {
      float* at = st.chunk.out + (panel * width + d) * kPanel + in_panel;
      const Vec old = mul(load(at), c);
      store(at, select(lanes_of(rows, lane), fma(set1(row.data[d]), p, old), old));
    }
  }
}

template <class E>
static inline bool is_poison(const E* v, int64_t width, const Tile& tile, int64_t j) {
  return tile.is_mixed(tile.first + j) && !all_finite(v, 0, 1, width);
}

#ifdef MMHA_BF16_PAIRS
// The tile's values as pairs of keys, 64 at a time. Values that are not finite are left out and then added on their
// own.
static inline void add_tile_values(const bf16* v, int64_t stride, int64_t width, const Tile& tile, ForwardState& st) {
  const int64_t odd = tile.first % 2, wide = wide_width(width);
  auto* zipped = reinterpret_cast<uint32_t*>(st.wide);
  const float* rescale = st.rescale;
  const auto row = [&](int64_t j, const Run& run) {
    const bool in = j >= run.first && j < run.last && !is_poison(v + j * stride, width, tile, j);
    return in ? v + j * stride : nullptr;
  };
  for (int r = 0; r < tile.runs; r++) {
    const Run& run = tile.run[r];
    for (int p = 0; p < st.q.panels; p++)
      round_probabilities(st.p + p * kForwardKeys * kPanel, run.first, run.last, odd,
                          st.pairs + p * (kForwardKeys / 2 + 1) * kPanel);
    for (int64_t m = (run.first + odd) / 2; 2 * m - odd < run.last; m += kValueChunk / 2) {
      int64_t count = 0;
      for (; count < kValueChunk / 2 && 2 * (m + count) - odd < run.last; count++) {
        const int64_t low = 2 * (m + count) - odd;
        zip_rows(row(low, run), row(low + 1, run), width, zipped + count * wide);
      }
      for (int64_t d = 0; d < width; d += kValueRows) {
        const int n = (int)(width - d < kValueRows ? width - d : kValueRows);
        with_rows<kValueRows>(n, [&](auto tag) {
          for (int p = 0; p < st.q.panels; p++)
            value_pair_tile<decltype(tag)::count>(zipped + d, wide,
                                                  st.pairs + (p * (kForwardKeys / 2 + 1) + m) * kPanel, count,
                                                  rescale + p * kPanel, st.chunk.out + (p * width + d) * kPanel);
        });
      }
      rescale = kOnes;
    }
  }
  for (int r = 0; r < tile.runs; r++)
    for (int64_t j = tile.run[r].first; j < tile.run[r].last; j++)
      if (is_poison(v + j * stride, width, tile, j))
        add_value_where_seen(v + j * stride, width, j, tile.seen[j], kOnes, st);
}
#endif

// Adds one run of the tile's keys to O; v is the row of its first. What is added first rescales O.
template <class E>
static inline void add_run_values(const E* v, int64_t stride, int64_t width, const Run& run, const Tile& tile,
                                  const float*& rescale, ForwardState& st) {
  const auto row = [&](int64_t j) { return v + (j - run.first) * stride; };
  int64_t done = run.first;
  const auto add_to = [&](int64_t j) {
    if (j == done) return;
    add_values(row(done), stride, width, done, j, rescale, st);
    rescale = kOnes;
  };
  for (int64_t j = done; j < run.last; j++) {
    if (!is_poison(row(j), width, tile, j)) continue;
    add_to(j);
    add_value_where_seen(row(j), width, j, tile.seen[j], rescale, st);
    rescale = kOnes;
    done = j + 1;
  }
  add_to(run.last);
}

// Adds the tile's values to O, run by run. v is the row of the tile's first key.
template <class E>
static inline void add_tile_values(const E* v, int64_t stride, int64_t width, const Tile& tile, ForwardState& st) {
  const float* rescale = st.rescale;
  for (int r = 0; r < tile.runs; r++)
    add_run_values(v + tile.run[r].first * stride, stride, width, tile.run[r], tile, rescale, st);
}

}  // namespace
}  // namespace mmha

// c += a b: an element of `a` is broadcast, the lanes run along a row of `b`. Backward's gradients, and O of a few
// rows, whose `b` is widened on its way into the registers.
#pragma once
#include "blocks.h"

namespace mmha {
namespace {

// c[r][0 .. kLanes * NV) += sum_x a[r * a_row + x * a_sum] * b[x][...], x ascending. With `part` > 0 the last vector
// of a row holds only `part` numbers.
template <int R, int NV, bool Part, class E>
MMHA_INLINE void outer_tile(const float* a, int64_t a_row, int64_t a_sum, const E* b, int64_t b_stride, int64_t count,
                            float* c, int64_t c_stride, int part, const E* ahead) {
  Vec acc[R][NV];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) {
      const float* at = c + r * c_stride + v * kLanes;
      acc[r][v] = Part && v == NV - 1 ? load_part(at, part) : load(at);
    }
  const auto row = [&](int64_t x, int v) {
    const E* at = b + x * b_stride + v * kLanes;
    return Part && v == NV - 1 ? load_part(at, part) : load(at);
  };
  for (int64_t x = 0; x < count; x++) {
    if (ahead) {
      constexpr int64_t slice = NV * kLanes;
#pragma GCC unroll 8
      for (int64_t y = 0; y < slice; y += (int64_t)(64 / sizeof(E))) ask(ahead + x * slice + y);
    }
    if constexpr (R < NV) {  // whichever are fewer wait in registers
      Vec w[R];
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) w[r] = set1(a[r * a_row + x * a_sum]);
#pragma GCC unroll 8
      for (int v = 0; v < NV; v++) {
        const Vec y = row(x, v);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) acc[r][v] = fma(w[r], y, acc[r][v]);
      }
    } else {
      Vec y[NV];
#pragma GCC unroll 8
      for (int v = 0; v < NV; v++) y[v] = row(x, v);
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) {
        const Vec w = set1(a[r * a_row + x * a_sum]);
#pragma GCC unroll 8
        for (int v = 0; v < NV; v++) acc[r][v] = fma(w, y[v], acc[r][v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 8
    for (int v = 0; v < NV; v++) {
      float* at = c + r * c_stride + v * kLanes;
      if (Part && v == NV - 1) store_part(at, acc[r][v], part);
      else store(at, acc[r][v]);
    }
}

template <class E>
struct ProductOf {
  const float* a;
  int64_t a_row, a_sum, rows;
  const E* b;
  int64_t b_stride, count;
  float* c;
  int64_t c_stride, width;
  const E* ahead = nullptr;
};
using Product = ProductOf<float>;

// Rows that take 8 vectors at a time: as many as leave a register.
constexpr int kLongRows = kLanes == 16 ? 2 : 1;

template <int NV, bool Part, class E>
static inline void outer_columns(const ProductOf<E>& m, int64_t column, int part) {
  constexpr int kRows = NV > kGemmVectors ? (NV == 8 ? kLongRows : NV == 6 ? 2 : 3) : kGemmRows;
  for (int64_t r = 0; r < m.rows; r += kRows) {
    const int n = (int)(m.rows - r < kRows ? m.rows - r : kRows);
    with_rows<kRows>(n, [&](auto rows) {
      outer_tile<decltype(rows)::count, NV, Part>(m.a + r * m.a_row, m.a_row, m.a_sum, m.b + column, m.b_stride,
                                                  m.count, m.c + r * m.c_stride + column, m.c_stride, part,
                                                  m.ahead && r == 0 ? m.ahead + column * m.count : nullptr);
    });
  }
}

// c += a b
template <class E>
MMHA_APART void outer(const ProductOf<E>& m) {
  int64_t column = 0;
  // Rows of b are read from one end to the other; and too few rows do not hide an FMA's latency behind each other.
  if (m.rows == 1 || (kLongRows == 2 && kIsFloat<E> && (m.rows == 2 || m.rows == 4)))
    for (; column + 8 * kLanes <= m.width; column += 8 * kLanes) outer_columns<8, false>(m, column, 0);
  else if (m.rows == 2 || (m.rows == 4 && kIsFloat<E>))
    for (; column + 6 * kLanes <= m.width; column += 6 * kLanes) outer_columns<6, false>(m, column, 0);
  else if (m.rows <= 3)
    for (; column + 4 * kLanes <= m.width; column += 4 * kLanes) outer_columns<4, false>(m, column, 0);
  for (; column + kGemmVectors * kLanes <= m.width; column += kGemmVectors * kLanes)
    outer_columns<kGemmVectors, false>(m, column, 0);
  for (; column + kLanes <= m.width; column += kLanes) outer_columns<1, false>(m, column, 0);
  if (column < m.width) outer_columns<1, true>(m, column, (int)(m.width - column));
}

template <class E>
static inline void add_scaled_row(float w, const E* b, float* c, int64_t width) {
  const Vec x = set1(w);
  int64_t d = 0;
  for (; d + kLanes <= width; d += kLanes) store(c + d, fma(x, load(b + d), load(c + d)));
  const int part = (int)(width - d);
  if (part > 0) store_part(c + d, fma(x, load_part(b + d, part), load_part(c + d, part)), part);
}

}  // namespace
}  // namespace mmha

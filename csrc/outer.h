// c += a b (product.h) for the tiles of backward, over the seen pairs alone where a number is not finite.
#pragma once
#include "probabilities.h"
#include "product.h"

namespace mmha {
namespace {

// c[r] += a[r, x] b[x] over the seen pairs alone, for 0 * inf is NaN; the same chain of FMAs as outer().
// key_is_row: rows of the product are keys and x are queries, or the reverse.
static inline void outer_where_seen(const Product& m, const Tile& tile, const Run& run, bool key_is_row) {
  for (int64_t r = 0; r < m.rows; r++)
    for (int64_t x = 0; x < m.count; x++) {
      const int64_t key = run.first + (key_is_row ? r : x), query = key_is_row ? x : r;
      if (tile.row_bits(tile.first + key) >> query & 1)
        add_scaled_row(m.a[r * m.a_row + x * m.a_sum], m.b + x * m.b_stride, m.c + r * m.c_stride, m.width);
    }
}

static inline void add_product(const Product& m, const Tile& tile, const Run& run, bool key_is_row, bool finite) {
  if (finite || tile.is_full()) outer(m);
  else outer_where_seen(m, tile, run, key_is_row);
}

}  // namespace
}  // namespace mmha

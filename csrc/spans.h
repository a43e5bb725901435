// Row spans and their algebra: what masks are lowered to.
#pragma once
#include <cstdint>
#include <vector>

#include "attention.h"

namespace mmha {

// Rows of sorted, disjoint, non-empty spans: row r owns spans[offsets[r] .. offsets[r + 1]).
struct RowSpans {
  std::vector<int64_t> offsets{0};
  std::vector<Span> spans;

  int64_t rows() const { return (int64_t)offsets.size() - 1; }
  void end_row() { offsets.push_back((int64_t)spans.size()); }
};

// The same, borrowed.
struct RowSpansView {
  const int64_t* offsets;
  const Span* spans;
};

// A (batch, heads, q_len) grid of rows; an extent of 1 stands for all.
struct RowGrid {
  int64_t batch, heads, q_len;

  int64_t rows() const { return batch * heads * q_len; }
  int64_t row(int64_t b, int64_t h, int64_t i) const {
    return ((batch == 1 ? 0 : b) * heads + (heads == 1 ? 0 : h)) * q_len + (q_len == 1 ? 0 : i);
  }
};

enum class Combine { kAnd, kOr };

// Row by row over `grid`; a and b are broadcast from their own grids. Linear in the number of spans.
RowSpans combine(Combine op, RowSpansView a, RowGrid a_grid, RowSpansView b, RowGrid b_grid, RowGrid grid);
RowSpans complement(RowSpansView a, int64_t rows, int64_t k_len);
// dense is (rows, k_len), non-zero = visible.
RowSpans from_bool(const uint8_t* dense, int64_t rows, int64_t k_len);

// bits are (rows, (k_len + 63) / 64): bit j % 64 of word j / 64.
void pack_bits(const uint8_t* dense, int64_t rows, int64_t k_len, uint64_t* bits);
void spans_to_bits(RowSpansView a, int64_t rows, int64_t k_len, uint64_t* bits);

}  // namespace mmha

#include "spans.h"

#include <algorithm>
#include <cstring>

namespace mmha {
namespace {

// Appends a run to the row under construction, joined to the last one where they touch.
void append(RowSpans& out, Span s) {
  if (s.start >= s.stop) return;
  const bool has_last = (int64_t)out.spans.size() > out.offsets.back();
  if (has_last && out.spans.back().stop >= s.start) out.spans.back().stop = std::max(out.spans.back().stop, s.stop);
  else out.spans.push_back(s);
}

void intersect_row(const Span* a, const Span* a_end, const Span* b, const Span* b_end, RowSpans& out) {
  while (a != a_end && b != b_end) {
    append(out, {std::max(a->start, b->start), std::min(a->stop, b->stop)});
    if (a->stop < b->stop) ++a;
    else ++b;
  }
}

void unite_row(const Span* a, const Span* a_end, const Span* b, const Span* b_end, RowSpans& out) {
  while (a != a_end || b != b_end) {
    const bool take_a = b == b_end || (a != a_end && a->start < b->start);
    append(out, take_a ? *a++ : *b++);
  }
}

}  // namespace

RowSpans combine(Combine op, RowSpansView a, RowGrid a_grid, RowSpansView b, RowGrid b_grid, RowGrid grid) {
  RowSpans out;
  out.offsets.reserve(grid.rows() + 1);
  out.spans.reserve(grid.rows());
  for (int64_t n = 0; n < grid.batch; n++)
    for (int64_t h = 0; h < grid.heads; h++)
      for (int64_t i = 0; i < grid.q_len; i++) {
        const int64_t ra = a_grid.row(n, h, i), rb = b_grid.row(n, h, i);
        const Span *a0 = a.spans + a.offsets[ra], *a1 = a.spans + a.offsets[ra + 1];
        const Span *b0 = b.spans + b.offsets[rb], *b1 = b.spans + b.offsets[rb + 1];
        if (op == Combine::kAnd) intersect_row(a0, a1, b0, b1, out);
        else unite_row(a0, a1, b0, b1, out);
        out.end_row();
      }
  return out;
}

RowSpans complement(RowSpansView a, int64_t rows, int64_t k_len) {
  RowSpans out;
  out.offsets.reserve(rows + 1);
  for (int64_t r = 0; r < rows; r++) {
    int32_t at = 0;
    for (int64_t c = a.offsets[r]; c < a.offsets[r + 1]; c++) {
      append(out, {at, a.spans[c].start});
      at = a.spans[c].stop;
    }
    append(out, {at, (int32_t)k_len});
    out.end_row();
  }
  return out;
}

RowSpans from_bool(const uint8_t* dense, int64_t rows, int64_t k_len) {
  RowSpans out;
  out.offsets.reserve(rows + 1);
  for (int64_t r = 0; r < rows; r++) {
    const uint8_t* row = dense + r * k_len;
    int64_t j = 0;
    while (j < k_len) {
      if (!row[j]) {
        const void* next = std::memchr(row + j, 1, k_len - j);
        if (!next) break;
        j = static_cast<const uint8_t*>(next) - row;
      }
      const void* end = std::memchr(row + j, 0, k_len - j);
      const int64_t stop = end ? static_cast<const uint8_t*>(end) - row : k_len;
      out.spans.push_back({(int32_t)j, (int32_t)stop});
      j = stop;
    }
    out.end_row();
  }
  return out;
}

void pack_bits(const uint8_t* dense, int64_t rows, int64_t k_len, uint64_t* bits) {
  const int64_t words = (k_len + 63) / 64;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t w = 0; w < words; w++) {
      uint64_t word = 0;
      const int64_t count = std::min<int64_t>(64, k_len - 64 * w);
      for (int64_t j = 0; j < count; j++) word |= (uint64_t)(dense[r * k_len + 64 * w + j] != 0) << j;
      bits[r * words + w] = word;
    }
}

void spans_to_bits(RowSpansView a, int64_t rows, int64_t k_len, uint64_t* bits) {
  const int64_t words = (k_len + 63) / 64;
  std::fill(bits, bits + rows * words, 0);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = a.offsets[r]; c < a.offsets[r + 1]; c++)
      for (int64_t j = a.spans[c].start; j < a.spans[c].stop;) {
        const int64_t count = std::min<int64_t>(64 - j % 64, a.spans[c].stop - j);
        const uint64_t run = count == 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
        bits[r * words + j / 64] |= run << (j % 64);
        j += count;
      }
}

}  // namespace mmha

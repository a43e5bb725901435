#include "plan.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <stdexcept>

namespace mmha {
namespace {

[[noreturn]] void fail(const std::string& message) { throw std::invalid_argument(message); }

// Not for loops over rows: the message is built whether it is needed or not.
void require(bool ok, const std::string& message) {
  if (!ok) fail(message);
}

}  // namespace

Plan::Plan(RowGrid grid, int64_t k_len, std::vector<int64_t> offsets, std::vector<Span> spans,
           std::vector<uint64_t> bits)
    : grid_(grid),
      k_len_(k_len),
      words_((k_len + 63) / 64),
      offsets_(std::move(offsets)),
      spans_(std::move(spans)),
      bits_(std::move(bits)),
      has_bits_(!bits_.empty()),
      compact_(!has_bits_ && offsets_.empty()) {
  check();
  weigh();
}

void Plan::check() const {
  require(grid_.batch >= 0 && grid_.heads >= 0 && grid_.q_len >= 0, "`dims`: expected sizes >= 0, got a negative one");
  require(k_len_ >= 0 && k_len_ <= INT32_MAX, "`k_len`: expected 0 to 2147483647, got " + std::to_string(k_len_));
  const int64_t rows = grid_.rows();
  if (has_bits_) {
    require((int64_t)bits_.size() == rows * words_,
            "`bits`: expected " + std::to_string(rows * words_) + " words, got " + std::to_string(bits_.size()));
    const uint64_t beyond = k_len_ % 64 ? ~uint64_t{0} << (k_len_ % 64) : 0;
    for (int64_t r = 0; r < rows; r++)
      if (bits_[(r + 1) * words_ - 1] & beyond)
        fail("`bits`: expected 0 beyond k_len, got a set bit in row " + std::to_string(r));
    return;
  }
  if (compact_) {
    require((int64_t)spans_.size() == rows,
            "`spans`: expected " + std::to_string(rows) + " rows, got " + std::to_string(spans_.size()));
  } else {
    require((int64_t)offsets_.size() == rows + 1 && offsets_.front() == 0 &&
                offsets_.back() == (int64_t)spans_.size() && std::is_sorted(offsets_.begin(), offsets_.end()),
            "`offsets`: expected " + std::to_string(rows + 1) + " ascending numbers from 0 to the number of spans");
  }
  for (int64_t r = 0; r < rows; r++) {
    const int64_t first = compact_ ? r : offsets_[r], last = compact_ ? r + 1 : offsets_[r + 1];
    int64_t at = 0;
    for (int64_t c = first; c < last; c++) {
      const Span s = spans_[c];
      if (s.start < at || s.stop > k_len_ || s.start > s.stop || (s.start == s.stop && !compact_))
        fail("`spans`: expected sorted, disjoint runs within 0 to " + std::to_string(k_len_) + ", got [" +
             std::to_string(s.start) + ", " + std::to_string(s.stop) + ") in row " + std::to_string(r));
      at = s.stop;
    }
  }
}

int64_t Plan::row_visible(int64_t r) const {
  int64_t n = 0;
  if (has_bits_) {
    for (int64_t w = 0; w < words_; w++) n += std::popcount(bits_[r * words_ + w]);
    return n;
  }
  const int64_t first = compact_ ? r : offsets_[r], last = compact_ ? r + 1 : offsets_[r + 1];
  for (int64_t c = first; c < last; c++) n += spans_[c].stop - spans_[c].start;
  return n;
}

void Plan::weigh() {
  const int64_t groups = grid_.batch * grid_.heads;
  block_cost_.assign(groups * blocks(), 0);
  block_order_.resize(groups * blocks());
  group_cost_.assign(groups, 0);
  for (int64_t g = 0; g < groups; g++) {
    int64_t* cost = block_cost_.data() + g * blocks();
    for (int64_t i = 0; i < grid_.q_len; i++) cost[i / kForwardRows] += row_visible(g * grid_.q_len + i);
    group_cost_[g] = std::accumulate(cost, cost + blocks(), int64_t{0});
    visible_ += group_cost_[g];
    int32_t* order = block_order_.data() + g * blocks();
    std::iota(order, order + blocks(), 0);
    std::stable_sort(order, order + blocks(), [&](int32_t x, int32_t y) { return cost[x] > cost[y]; });
  }
}

PlanView Plan::view() const {
  return {grid_.batch,
          grid_.heads,
          grid_.q_len,
          k_len_,
          compact_ || has_bits_ ? nullptr : offsets_.data(),
          has_bits_ ? nullptr : spans_.data(),
          has_bits_ ? bits_.data() : nullptr,
          words_};
}

int64_t Plan::nbytes() const {
  return (int64_t)(offsets_.capacity() * sizeof(int64_t) + spans_.capacity() * sizeof(Span) +
                   bits_.capacity() * sizeof(uint64_t) + block_cost_.capacity() * sizeof(int64_t) +
                   block_order_.capacity() * sizeof(int32_t) + group_cost_.capacity() * sizeof(int64_t));
}

RowSpans Plan::row(int64_t r) const {
  require(r >= 0 && r < grid_.rows(),
          "`row`: expected 0 to " + std::to_string(grid_.rows() - 1) + ", got " + std::to_string(r));
  RowSpans out;
  if (has_bits_) {
    for (int64_t j = 0; j < k_len_; j++) {
      if (!(bits_[r * words_ + j / 64] >> (j % 64) & 1)) continue;
      if (!out.spans.empty() && out.spans.back().stop == j) out.spans.back().stop++;
      else out.spans.push_back({(int32_t)j, (int32_t)j + 1});
    }
  } else {
    const int64_t first = compact_ ? r : offsets_[r], last = compact_ ? r + 1 : offsets_[r + 1];
    for (int64_t c = first; c < last; c++)
      if (spans_[c].start < spans_[c].stop) out.spans.push_back(spans_[c]);
  }
  out.end_row();
  return out;
}

std::vector<int32_t> Plan::chunks_seen(const std::vector<int64_t>& rows) const {
  std::vector<Span> runs;  // of chunks
  const auto sees = [&](int64_t start, int64_t stop) {
    if (start < stop) runs.push_back({(int32_t)(start / kChunkKeys), (int32_t)((stop - 1) / kChunkKeys + 1)});
  };
  for (const int64_t r : rows) {
    for (int64_t w = 0; has_bits_ && w < words_; w++)
      if (bits_[r * words_ + w]) sees(64 * w, 64 * w + 1);
    if (has_bits_) continue;
    const int64_t first = compact_ ? r : offsets_[r], last = compact_ ? r + 1 : offsets_[r + 1];
    for (int64_t c = first; c < last; c++) sees(spans_[c].start, spans_[c].stop);
  }
  std::sort(runs.begin(), runs.end(), [](const Span& x, const Span& y) { return x.start < y.start; });
  std::vector<int32_t> out;
  int32_t next = 0;
  for (const Span& run : runs)
    for (next = std::max(next, run.start); next < run.stop; next++) out.push_back(next);
  return out;
}

RowSpans Plan::key_tile_blocks(int64_t g) const {
  const int64_t tiles = (k_len_ + kBackwardKeys - 1) / kBackwardKeys;
  std::vector<std::vector<Span>> runs(tiles);
  const auto sees = [&](int64_t tile, int32_t block) {
    std::vector<Span>& r = runs[tile];
    if (!r.empty() && r.back().stop >= block) r.back().stop = block + 1;
    else r.push_back({block, block + 1});
  };
  for (int64_t i = 0; i < grid_.q_len; i++) {
    const int64_t r = g * grid_.q_len + i;
    const auto block = (int32_t)(i / kBackwardRows);
    if (has_bits_) {
      for (int64_t w = 0; w < words_; w++)
        if (bits_[r * words_ + w]) sees(64 * w / kBackwardKeys, block);
      continue;
    }
    const int64_t first = compact_ ? r : offsets_[r], last = compact_ ? r + 1 : offsets_[r + 1];
    for (int64_t c = first; c < last; c++)
      for (int64_t t = spans_[c].start / kBackwardKeys; t * kBackwardKeys < spans_[c].stop; t++)
        if (spans_[c].start < spans_[c].stop) sees(t, block);
  }
  RowSpans out;
  for (const std::vector<Span>& r : runs) {
    out.spans.insert(out.spans.end(), r.begin(), r.end());
    out.end_row();
  }
  return out;
}

std::vector<uint8_t> Plan::tiles(int64_t q_tile, int64_t k_tile) const {
  require(q_tile > 0 && k_tile > 0, "`tile`: expected sizes > 0, got " + std::to_string(std::min(q_tile, k_tile)));
  const int64_t nq = (grid_.q_len + q_tile - 1) / q_tile, nk = (k_len_ + k_tile - 1) / k_tile;
  const int64_t groups = grid_.batch * grid_.heads;
  std::vector<uint8_t> out(groups * nq * nk);
  std::vector<int64_t> seen(nk);
  for (int64_t g = 0; g < groups; g++)
    for (int64_t t = 0; t < nq; t++) {
      std::fill(seen.begin(), seen.end(), 0);
      const int64_t first = t * q_tile, last = std::min(first + q_tile, grid_.q_len);
      for (int64_t i = first; i < last; i++)
        for (const Span& s : row(g * grid_.q_len + i).spans)
          for (int64_t k = s.start / k_tile; k * k_tile < s.stop; k++)
            seen[k] += std::min<int64_t>(s.stop, (k + 1) * k_tile) - std::max<int64_t>(s.start, k * k_tile);
      for (int64_t k = 0; k < nk; k++) {
        const int64_t all = (last - first) * (std::min((k + 1) * k_tile, k_len_) - k * k_tile);
        out[(g * nq + t) * nk + k] = seen[k] == 0 ? 0 : seen[k] == all ? 2 : 1;
      }
    }
  return out;
}

}  // namespace mmha

// A lowered mask that owns its arrays, with what the drivers need to share out the work.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "spans.h"

namespace mmha {

class Plan {
 public:
  // Exactly one of: spans with offsets; spans alone (one a row); bits. Throws std::invalid_argument.
  Plan(RowGrid grid, int64_t k_len, std::vector<int64_t> offsets, std::vector<Span> spans, std::vector<uint64_t> bits);

  PlanView view() const;
  RowGrid grid() const { return grid_; }
  int64_t k_len() const { return k_len_; }
  int64_t visible() const { return visible_; }
  int64_t nbytes() const;
  RowSpans row(int64_t r) const;
  // 0 empty, 1 mixed, 2 full per (batch, heads, tile of rows, tile of keys).
  std::vector<uint8_t> tiles(int64_t q_tile, int64_t k_tile) const;

  // The chunks of kChunkKeys keys of which one of the rows sees any, ascending.
  std::vector<int32_t> chunks_seen(const std::vector<int64_t>& rows) const;

  // Per key tile of kBackwardKeys, the blocks of kBackwardRows rows of mask group g that may see it, as ascending runs.
  RowSpans key_tile_blocks(int64_t g) const;

  // Visible pairs of forward blocks (kForwardRows rows), per mask row group (batch * heads), and the blocks of each
  // group from heavy to light.
  const std::vector<int64_t>& block_cost() const { return block_cost_; }
  const std::vector<int32_t>& block_order() const { return block_order_; }
  const std::vector<int64_t>& group_cost() const { return group_cost_; }
  int64_t blocks() const { return (grid_.q_len + kForwardRows - 1) / kForwardRows; }

 private:
  void check() const;
  void weigh();
  int64_t row_visible(int64_t r) const;

  RowGrid grid_;
  int64_t k_len_, words_;
  std::vector<int64_t> offsets_;
  std::vector<Span> spans_;
  std::vector<uint64_t> bits_;
  bool has_bits_, compact_;
  int64_t visible_ = 0;
  std::vector<int64_t> block_cost_, group_cost_;
  std::vector<int32_t> block_order_;
};

}  // namespace mmha

// The contract between the Python binding, the drivers and the kernels: plain data, no behaviour.
//
// Words: B batch, H query heads, Hk key/value heads (H % Hk == 0), Tq queries, Tk keys, D head size of q and k,
// Dv head size of v. A pair (query row, key) is visible or hidden. A span is a half-open run of visible keys.
// A tile is a block of queries x keys that a kernel visits; key tiles start at multiples of their size, so the
// order of every sum is fixed by absolute key positions and by nothing else.
#pragma once
#include <stdint.h>

namespace mmha {

// Query rows of one forward task, and of one backward task. Fixed for all instruction sets: the tile masks
// are one machine word a key.
constexpr int kForwardRows = 32;
constexpr int kBackwardRows = 64;
// Keys of one tile. A multiple of 64, so that a tile of bit rows starts at a word.
constexpr int kForwardKeys = 256;
constexpr int kBackwardKeys = 128;

// A (B, heads, T, width) tensor of float32; strides in elements, the last dimension contiguous.
struct Tensor {
  float* data;
  int64_t stride_b, stride_h, stride_t;
};

struct Span {
  int32_t start, stop;
};

// What a kernel knows of a mask. Row r = (mask_b * heads + mask_h) * q_len + i.
//  compact: offsets == nullptr, spans[r] is the row's only span (start == stop: the row is hidden)
//  spans:   spans[offsets[r] .. offsets[r + 1]), sorted, disjoint, not empty
//  bits:    spans == nullptr, bit j % 64 of bits[r * words + j / 64]
struct PlanView {
  int64_t batch, heads;  // each 1 (the same for all) or the problem's own
  int64_t q_len, k_len;
  const int64_t* offsets;
  const Span* spans;
  const uint64_t* bits;
  int64_t words;
};

struct Sizes {
  int64_t batch, heads, kv_heads, q_len, k_len, head_dim, value_dim;
};

struct ForwardArgs {
  Sizes size;
  PlanView plan;
  Tensor q, k, v, out;
  float* lse;  // (B, H, Tq) contiguous, or nullptr
  float scale;
};

struct BackwardArgs {
  Sizes size;
  PlanView plan;
  Tensor q, k, v, grad_out;
  const float* lse;    // (B, H, Tq), from forward
  const float* delta;  // (B, H, Tq), rowsum(out * grad_out) - grad_lse
  Tensor grad_q, grad_k, grad_v;
  float scale;
};

struct RowDotArgs {
  int64_t batch, heads, rows, width;
  Tensor a, b;
  float* out;  // (B, heads, rows) contiguous
};

// Ascending half-open runs of query blocks (of kBackwardRows) that see a key tile (of kBackwardKeys).
struct BlockRuns {
  const Span* runs;
  int64_t count;
};

// One entry per instruction set. Every function computes one task; the drivers (driver.cpp) decide which thread
// runs which task. `scratch` is 64-byte aligned and at least `*_scratch(size)` floats long.
struct KernelTable {
  const char* name;
  int64_t (*forward_scratch)(const Sizes&);
  int64_t (*backward_scratch)(const Sizes&);
  // Rows [block * kForwardRows, ...) of query head h.
  void (*forward_block)(const ForwardArgs&, int64_t b, int64_t h, int64_t block, float* scratch);
  // All of grad_k and grad_v of one key/value head, and grad_q of the query heads that share it.
  void (*backward_group)(const BackwardArgs&, int64_t b, int64_t kv_head, float* scratch);
  // The same result in two independent passes: grad_k and grad_v of one key tile; grad_q of one query block.
  // `runs` are, for each query head of the group, the blocks that see the tile.
  void (*backward_keys)(const BackwardArgs&, int64_t b, int64_t kv_head, int64_t tile, const BlockRuns* runs,
                        float* scratch);
  void (*backward_queries)(const BackwardArgs&, int64_t b, int64_t h, int64_t block, float* scratch);
  void (*row_dot)(const RowDotArgs&, int64_t b, int64_t h);
  // Runs `rounds` x flops_per_round() floating point operations on registers.
  float (*probe_fma)(int64_t rounds);
  int64_t (*probe_flops_per_round)();
  float (*probe_read)(const float* data, int64_t count);
};

// Each target_*.cpp defines one of these.
extern const KernelTable kScalarTable;
extern const KernelTable kAvx2Table;
extern const KernelTable kAvx512Table;
extern const KernelTable kNeonTable;

}  // namespace mmha

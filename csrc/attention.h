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
// Keys whose softmax is one online chain; the chunks are then merged in ascending order. A multiple of kForwardKeys.
constexpr int kChunkKeys = 1024;

enum class DType : int32_t { kFloat32 = 0, kBfloat16 = 1, kFloat16 = 2, kInt8 = 3 };
constexpr int kDTypes = 3;  // of q, k, v and out
constexpr int kCacheDTypes = 4;

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

// A (B, heads, T, width) tensor of one of the dtypes; strides in elements, the last dimension contiguous.
struct Tensor {
  void* data;
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

// A tensor of numbers that are added to the scores, read in place: broadcast to (B, H, Tq, Tk) through strides of 0.
struct Additive {
  const void* data;
  DType dtype;
  int64_t stride_b, stride_h, stride_q, stride_k;
};

// What stands between scale * q.k and the softmax, and between the softmax and the values. Row i of the queries of
// batch row b stands at position start[b] + i.
struct Extras {
  float softcap;         // x = softcap * tanh(x / softcap); 0: none
  const int64_t* start;  // (B,), or nullptr: Tk - Tq for all
  const float* slopes;   // (H,): - slope * |position - key|, or nullptr
  const float* table;    // (H, table_width): + table[h][clamp(table_width / 2 + key - position)], or nullptr
  int64_t table_width, table_stride;
  const Additive* additives;
  int64_t additive_count;
  const float* sinks;  // (H,): + exp(sink) in the denominator of every row that sees a key, or nullptr
  // Dropout: a pair is dropped when its 32 random bits (random.h) are below the threshold; 0: none.
  uint64_t seed;
  uint32_t threshold;
  float keep_scale;
};

struct CacheView;

struct ForwardArgs {
  Sizes size;
  PlanView plan;
  Tensor q, k, v, out;
  void* residual;  // as out: what rounding took away from it, for backward; or nullptr
  float* lse;      // (B, H, Tq) contiguous, or nullptr
  float scale;
  const Extras* extras;  // nullptr: none
  // Query heads that one block holds, one after the other: 1; or, where no extra tells them apart, as many of those
  // that share a key/value head as have room.
  int64_t fold;
  const CacheView* cache;  // takes the place of k and v, which are then empty; or nullptr
};

struct BackwardArgs {
  Sizes size;
  PlanView plan;
  Tensor q, k, v, grad_out;
  const float* lse;    // (B, H, Tq), from forward
  const float* delta;  // (B, H, Tq), rowsum(out * grad_out) + rowsum(weights * grad_weights) - grad_lse
  Tensor grad_q, grad_k, grad_v;
  float scale;
  const Extras* extras;   // nullptr: none
  Additive grad_weights;  // where its data is not nullptr; `extras` is then given, too
};

// out = rowsum((a + residual) * b); the residual lies as a, or is nullptr.
struct RowDotArgs {
  int64_t batch, heads, rows, width;
  Tensor a, b;
  void* residual;
  float* out;  // (B, heads, rows) contiguous
};

// Ascending half-open runs of query blocks (of kBackwardRows) that see a key tile (of kBackwardKeys).
struct BlockRuns {
  const Span* runs;
  int64_t count;
};

// The sums of the scores' gradient along the diagonals of all tiles with one distance between rows and keys: entry u
// belongs to key - position = kBackwardKeys - 1 - u plus the distance of the tiles.
constexpr int kStrip = kBackwardRows + kBackwardKeys;

// The gradient of an Additive: a contiguous (b, h, tq, tk) tensor, each extent 1 or the problem's own.
struct AdditiveGradient {
  float* data;
  int64_t batch, heads, q_len, k_len;
};

// Forward, one task a call; the drivers (driver.cpp) decide which thread runs which task. `scratch` is 64-byte aligned
// and at least `scratch_floats` floats long.
struct ForwardKernels {
  int64_t (*scratch_floats)(const Sizes&);
  // Rows [block * kForwardRows, ...) of query head h, or all rows of heads [h, h + fold).
  void (*block)(const ForwardArgs&, int64_t b, int64_t h, int64_t block, float* scratch);
  // The same in two steps: the keys of one chunk alone, and the chunks' results merged, with the same bits.
  void (*chunk)(const ForwardArgs&, int64_t b, int64_t h, int64_t block, int64_t chunk, float* part, float* scratch);
  void (*merge)(const ForwardArgs&, int64_t b, int64_t h, int64_t block, const float* parts, int64_t count,
                float* scratch);
  int64_t fold_rows;  // the most rows that a folded block may have
};

// One set per element type of q, k, v and out; as above.
struct TypedKernels {
  ForwardKernels forward;
  int64_t (*backward_scratch)(const Sizes&, int64_t keys);  // `keys` of grad_k and grad_v that a task gathers
  // All of grad_k and grad_v of one key/value head, and grad_q of the query heads that share it.
  void (*backward_group)(const BackwardArgs&, int64_t b, int64_t kv_head, float* scratch);
  // The same result in two independent passes: grad_k and grad_v of one key tile; grad_q of one query block.
  // `runs` are, for each query head of the group, the blocks that see the tile.
  void (*backward_keys)(const BackwardArgs&, int64_t b, int64_t kv_head, int64_t tile, const BlockRuns* runs,
                        float* scratch);
  void (*backward_queries)(const BackwardArgs&, int64_t b, int64_t h, int64_t block, float* scratch);
  // Gradients of what is added to the scores: all tiles at one distance, 2 * key tile - query block; one tile of an
  // additive tensor (block or tile is -1 where that dimension is broadcast).
  void (*strip_gradient)(const BackwardArgs&, int64_t b, int64_t h, int64_t distance, float* strip, float* scratch);
  void (*additive_gradient)(const BackwardArgs&, const AdditiveGradient&, int64_t group, int64_t block, int64_t tile,
                            float* scratch);
  void (*row_dot)(const RowDotArgs&, int64_t b, int64_t h);
  // The weights of one query block, those before dropout, from q, k and lse: all that is visible of (B, H, Tq, Tk).
  void (*weights)(const BackwardArgs&, const Tensor& out, int64_t b, int64_t h, int64_t block, float* scratch);
};

// One set per element type of a cache; q and out are float32, their rows one after the other.
struct CacheKernels {
  ForwardKernels forward;
  // The token at `position` of one key/value head of row b: key (head_dim) and value (value_dim) to its slot, and back.
  void (*write)(const CacheView&, int64_t b, int64_t kv_head, int64_t position, const float* key, const float* value);
  void (*read)(const CacheView&, int64_t b, int64_t kv_head, int64_t position, float* key, float* value);
};

struct KernelTable {
  const char* name;
  TypedKernels typed[kDTypes];
  CacheKernels cached[kCacheDTypes];
  // Runs `rounds` x flops_per_round() floating point operations on registers.
  float (*probe_fma)(int64_t rounds);
  int64_t (*probe_flops_per_round)();
  float (*probe_read)(const float* data, int64_t count);
};

// Floats of one chunk's result: the maximum and sum of each row, and the output of a block of rows.
constexpr int64_t chunk_floats(int64_t value_dim) { return kForwardRows * (value_dim + 2); }

// Each target_*.cpp defines one of these.
extern const KernelTable kScalarTable;
extern const KernelTable kAvx2Table;
extern const KernelTable kAvx512Table;
extern const KernelTable kAvx512Bf16Table;
extern const KernelTable kNeonTable;

}  // namespace mmha

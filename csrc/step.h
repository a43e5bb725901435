// What surrounds the kernels where a cache is read and written: the mask of most calls, and the fused decode step.
#pragma once
#include <vector>

#include "cache.h"
#include "plan.h"

namespace mmha {

// Row b of the batch has `lengths[b]` tokens; its queries stand at positions start[b] + i.
struct RowsOf {
  int64_t batch, q_len;
  const int64_t *lengths, *start;
};

// A query at position p sees key j when p - left <= j <= p + right, j < length, and, in a ring of `window` tokens,
// j > p - window or j < sinks (window 0: no ring). The bounds may be INT64_MAX / 2.
Plan window_plan(const RowsOf& rows, int64_t left, int64_t right, int64_t window, int64_t sinks);

// The first row of the batch with a query that sees a key which has been overwritten, or -1. Keys of row b are kept
// from kept[b] on, and below `sinks`.
int64_t forgotten_row(const Plan& plan, const RowsOf& rows, const int64_t* kept, int64_t sinks);

// How the two halves of a rotated pair stand, and by which angles pairs are turned: pair i by position *
// base^(-2i/dims).
struct RotaryArgs {
  int64_t dims;  // the first dims of a head are rotated; 0: none
  double base;
  bool interleaved;
  const int64_t* positions;  // (batch, ids)
  int64_t ids;               // 2: the first half of dims by the first id, the second half by the second
};

struct StepArgs {
  int64_t batch, heads, kv_heads, head_dim, value_dim;
  const float* qkv;   // (batch, (H + Hk) * D + Hk * Dv): all q, all k, all v
  const float* bias;  // of one row, or nullptr
  RotaryArgs rotary;
  float *q, *k, *v;  // out: (batch, H, D), (batch, Hk, D), (batch, Hk, Dv)
};

// Adds the bias and rotates q and k.
void split_step(const StepArgs& args);

}  // namespace mmha

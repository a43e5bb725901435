// Shares the tasks of one call out over threads.
#pragma once
#include "attention.h"
#include "cache.h"
#include "plan.h"

namespace mmha {

void forward(const ForwardArgs& args, const Plan& plan, DType dtype, int threads);
// The same for float32 queries over args.cache; the rows of q, and of out, lie one after the other.
void cached_forward(const ForwardArgs& args, const Plan& plan, int threads);

// Tokens of a cache: count[b] of row b, from position first[b] on. keys (batch, Hk, tokens, D) and values
// (batch, Hk, tokens, Dv), contiguous float32.
struct TokenArgs {
  int64_t batch, tokens;
  const int64_t *first, *count;
  float *keys, *values;
};
void cache_write(const CacheView& cache, const TokenArgs& tokens, int threads);
void cache_read(const CacheView& cache, const TokenArgs& tokens, int threads);

void backward(BackwardArgs args, const Plan& plan, DType dtype, int threads);
void row_dot(const RowDotArgs& args, DType dtype, int threads);

// out (B, H, Tq, Tk) in the dtype of q: the weights where they are visible; what is hidden is left as it is.
void weights(BackwardArgs args, const Tensor& out, const Plan& plan, DType dtype, int threads);

// Gradients of what is added to the scores, from the arguments of backward. `table` is (H, table_width) and `slopes`
// (H,), each may be nullptr; `sinks` is (H,).
void table_gradient(BackwardArgs args, const Plan& plan, DType dtype, float* table, float* slopes, int threads);
void additive_gradient(BackwardArgs args, const Plan& plan, DType dtype, const AdditiveGradient& out, int threads);
void sink_gradient(const Sizes& size, const float* lse, const float* delta, const float* sinks, float* out);

double probe_fma_gflops(int threads, double seconds);
double probe_read_gbytes(int64_t bytes, int threads);

}  // namespace mmha

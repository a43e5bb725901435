// Shares the tasks of one call out over threads.
#pragma once
#include "attention.h"
#include "plan.h"

namespace mmha {

void forward(ForwardArgs args, const Plan& plan, DType dtype, int threads);
void backward(BackwardArgs args, const Plan& plan, DType dtype, int threads);
void row_dot(const RowDotArgs& args, DType dtype, int threads);

// Gradients of what is added to the scores, from the arguments of backward. `table` is (H, table_width) and `slopes`
// (H,), each may be nullptr; `sinks` is (H,).
void table_gradient(BackwardArgs args, const Plan& plan, DType dtype, float* table, float* slopes, int threads);
void additive_gradient(BackwardArgs args, const Plan& plan, DType dtype, const AdditiveGradient& out, int threads);
void sink_gradient(const Sizes& size, const float* lse, const float* delta, const float* sinks, float* out);

double probe_fma_gflops(int threads, double seconds);
double probe_read_gbytes(int64_t bytes, int threads);

}  // namespace mmha

// Shares the tasks of one call out over threads.
#pragma once
#include "attention.h"
#include "plan.h"

namespace mmha {

void forward(ForwardArgs args, const Plan& plan, int threads);
void backward(BackwardArgs args, const Plan& plan, int threads);
void row_dot(const RowDotArgs& args, int threads);

double probe_fma_gflops(int threads, double seconds);
double probe_read_gbytes(int64_t bytes, int threads);

}  // namespace mmha

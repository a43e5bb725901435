// The machine's own limits, measured with the same instructions as the kernels: FMAs on registers, and reading.
#pragma once
#include "blocks.h"

namespace mmha {
namespace {

constexpr int kProbeChains = 12;  // enough independent chains to hide the latency of an FMA on any of our targets

static int64_t probe_flops_per_round() { return 2 * kProbeChains * kLanes; }

static float probe_fma(int64_t rounds) {
  Vec acc[kProbeChains];
  for (int i = 0; i < kProbeChains; i++) acc[i] = set1((float)i);
  const Vec x = set1(0.999f), y = set1(1e-3f);
  for (int64_t n = 0; n < rounds; n++)
#pragma GCC unroll 16
    for (int i = 0; i < kProbeChains; i++) acc[i] = fma(acc[i], x, y);
  for (int i = 1; i < kProbeChains; i++) acc[0] = add(acc[0], acc[i]);
  return sum_lanes(acc[0]);
}

static float probe_read(const float* data, int64_t count) {
  constexpr int kStreams = 8;
  Vec acc[kStreams];
  for (int i = 0; i < kStreams; i++) acc[i] = zero();
  for (int64_t n = 0; n + kStreams * kLanes <= count; n += kStreams * kLanes)
#pragma GCC unroll 8
    for (int i = 0; i < kStreams; i++) acc[i] = add(acc[i], load(data + n + i * kLanes));
  for (int i = 1; i < kStreams; i++) acc[0] = add(acc[0], acc[i]);
  return sum_lanes(acc[0]);
}

}  // namespace
}  // namespace mmha

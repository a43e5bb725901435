// The kernels of one instruction set as a table: include after a simd/*.h, then MMHA_DEFINE_TABLE(name, "isa").
#pragma once
#include "backward.h"
#include "bias_gradient.h"
#include "cached.h"
#include "probe.h"
#include "weights.h"

namespace mmha {
namespace {

template <class E>
constexpr TypedKernels kTyped = {
    {forward_scratch<E>, forward_block<E>, forward_chunk<E>, forward_merge<E>, kPairs<E> ? 0 : kLanes},
    backward_scratch<E>,
    backward_group<E>,
    backward_keys<E>,
    backward_queries<E>,
    strip_gradient<E>,
    additive_gradient<E>,
    row_dot<E>,
    weights_block<E>};

template <class C>
constexpr CacheKernels kCached = {
    {cached_scratch, cached_block<C>, cached_chunk<C>, forward_merge<float>, kForwardRows},
    write_token<C>,
    read_token<C>};

}  // namespace
}  // namespace mmha

#define MMHA_DEFINE_TABLE(table, isa)                                                        \
  namespace mmha {                                                                           \
  extern const KernelTable table;                                                            \
  const KernelTable table = {isa,                                                            \
                             {kTyped<float>, kTyped<bf16>, kTyped<f16>},                     \
                             {kCached<float>, kCached<bf16>, kCached<f16>, kCached<int8_t>}, \
                             probe_fma,                                                      \
                             probe_flops_per_round,                                          \
                             probe_read};                                                    \
  }

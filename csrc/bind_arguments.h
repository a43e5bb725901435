// What calls of attention have in common: addresses, dtypes, and what is added to the scores.
#pragma once
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "attention.h"

using Dims = std::tuple<int64_t, int64_t, int64_t>;
using Dims4 = std::tuple<int64_t, int64_t, int64_t, int64_t>;

template <class T>
static inline T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

static inline mmha::DType dtype_of(int code, int count = mmha::kDTypes) {
  if (code < 0 || code >= count)
    throw std::invalid_argument("`dtype`: expected a number below " + std::to_string(count) + ", got " +
                                std::to_string(code));
  return static_cast<mmha::DType>(code);
}

// Address, dtype, strides.
using AdditiveArg = std::tuple<uintptr_t, int, Dims4>;

static inline mmha::Additive additive(const AdditiveArg& arg) {
  const auto& [address, code, strides] = arg;
  return {pointer<const void>(address), dtype_of(code),       std::get<0>(strides),
          std::get<1>(strides),         std::get<2>(strides), std::get<3>(strides)};
}

// softcap, addresses of start and slopes, table (address, width, head stride), additives (address, dtype, strides),
// address of sinks, dropout_p, seed; an address of 0 stands for what is not there.
using ExtrasArg = std::tuple<float, uintptr_t, uintptr_t, Dims, std::vector<AdditiveArg>, uintptr_t, double, int64_t>;

// The kernels' view of the extras, with the list that it points into.
struct Extras {
  std::vector<mmha::Additive> additives;
  mmha::Extras view{};
  bool given;

  explicit Extras(const std::optional<ExtrasArg>& arg) : given(arg.has_value()) {
    if (!given) return;
    const auto& [softcap, start, slopes, table, tensors, sinks, dropout_p, seed] = *arg;
    for (const AdditiveArg& tensor : tensors) additives.push_back(additive(tensor));
    view.softcap = softcap;
    view.start = pointer<const int64_t>(start);
    view.slopes = pointer<const float>(slopes);
    view.table = pointer<const float>(std::get<0>(table));
    view.table_width = std::get<1>(table);
    view.table_stride = std::get<2>(table);
    view.additives = additives.data();
    view.additive_count = (int64_t)additives.size();
    view.sinks = pointer<const float>(sinks);
    view.seed = (uint64_t)seed;
    view.threshold = (uint32_t)std::min(std::nearbyint(dropout_p * 4294967296.0), 4294967295.0);
    view.keep_scale = dropout_p < 1.0 ? (float)(1.0 / (1.0 - dropout_p)) : 0.0f;
  }
  const mmha::Extras* get() const { return given ? &view : nullptr; }
};

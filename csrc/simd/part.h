// The first numbers of a vector, through memory: for instruction sets without masked loads and stores of the type.
#pragma once

namespace mmha {
namespace {

template <class E>
MMHA_INLINE Vec load_part(const E* p, int n) {
  E t[kLanes] = {};
  for (int i = 0; i < n; i++) t[i] = p[i];
  return load(t);
}
template <class E>
MMHA_INLINE void store_part(E* p, Vec v, int n) {
  E t[kLanes];
  store(t, v);
  for (int i = 0; i < n; i++) p[i] = t[i];
}

}  // namespace
}  // namespace mmha

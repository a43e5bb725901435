// Large pages: a walk over memory in pages of 4 KiB stops at the end of each until the next is found.
#pragma once
#ifdef __linux__
#include <sys/mman.h>
#endif

#include <cstdint>

namespace mmha {

constexpr uintptr_t kLargePage = uintptr_t{1} << 21;

// Asks for large pages inside of [data, data + bytes), memory that was not touched yet; where there are none, nothing
// happens.
inline void prefer_large_pages([[maybe_unused]] void* data, [[maybe_unused]] int64_t bytes) {
#ifdef MADV_HUGEPAGE
  const auto at = reinterpret_cast<uintptr_t>(data);
  const uintptr_t first = (at + kLargePage - 1) / kLargePage * kLargePage,
                  last = (at + bytes) / kLargePage * kLargePage;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

}  // namespace mmha

// Dropout's random bits: a counter-based hash of (seed, batch, head, row, key), so that they depend on nothing else and
// need no memory. Row and key each get 64 well-mixed bits (splitmix64) once; per pair, two rounds of a 32-bit
// multiply-xorshift hash take one half of both before each multiplication.
#pragma once
#include "blocks.h"

namespace mmha {
namespace {

static inline uint64_t splitmix(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

struct RandomRows {
  uint64_t key_seed;
  uint32_t low[kBackwardRows], high[kBackwardRows];

  void start(uint64_t seed, int64_t b, int64_t h, int64_t row, int rows) {
    const uint64_t head = splitmix(splitmix(splitmix(seed) ^ (uint64_t)b) ^ (uint64_t)h);
    key_seed = splitmix(~seed);
    for (int i = 0; i < rows; i++) {
      const uint64_t r = splitmix(head ^ (uint64_t)(row + i));
      low[i] = (uint32_t)r;
      high[i] = (uint32_t)(r >> 32);
    }
  }
  uint64_t of_key(int64_t j) const { return splitmix(key_seed ^ (uint64_t)j); }
};

// 32 random bits for each lane's row and the key whose bits are `key`.
MMHA_INLINE Ints random_bits(const RandomRows& rows, int lane, uint64_t key) {
  Ints x = ixor(iload(rows.low + lane), iset1((uint32_t)key));
  x = imul(ixor(x, ishr<16>(x)), iset1(0x7feb352du));
  x = ixor(x, ishr<15>(x));
  x = iadd(x, ixor(iload(rows.high + lane), iset1((uint32_t)(key >> 32))));
  x = imul(x, iset1(0x846ca68bu));
  return ixor(x, ishr<16>(x));
}

}  // namespace
}  // namespace mmha

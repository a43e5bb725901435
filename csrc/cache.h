// Where a cache keeps the keys and values of each position. Plain data; torch owns the memory.
//
// A block is `slots` places for tokens: one per row of the batch, or one page of many.
//   keys    [block][Hk][group][D][kGroup]   kGroup neighbouring keys side by side: they are the lanes of a vector, so
//                                           a score is one chain of FMAs over D and nothing is summed across lanes
//   values  [block][Hk][slot][Dv]           rows: the lanes run along Dv
//   scales  [block][Hk][slot rounded up]    float32, of int8 keys and of values: x = scale * int8
#pragma once
#include "attention.h"

namespace mmha {

constexpr int64_t kGroup = 16;

struct CacheView {
  DType dtype;
  void *keys, *values;
  float *key_scales, *value_scales;  // nullptr unless int8
  int64_t kv_heads, head_dim, value_dim;
  int64_t slots, groups;  // of a block; groups = ceil(slots / kGroup)
  // Positions from `sinks` on go round in `ring` slots, after those of the sinks; 0: position = slot.
  int64_t ring, sinks;
  const int32_t* table;  // (rows, table_width): the block of each page of each row; nullptr: row b has block b
  int64_t table_width;
  const int32_t* beam;  // (rows, slots): the row in whose block the slot stands; nullptr: its own
};

struct Slots {
  int64_t block, slot, count;
};

// Where position j of row b stands, and how many of the positions [j, last) stand side by side from there on.
static inline Slots find_slots(const CacheView& c, int64_t b, int64_t j, int64_t last) {
  Slots at{b, j, last - j};
  const auto at_most = [&](int64_t n) { at.count = at.count < n ? at.count : n; };
  if (c.table) {
    at.block = c.table[b * c.table_width + j / c.slots];
    at.slot = j % c.slots;
    at_most(c.slots - at.slot);
  } else if (c.ring) {
    if (j < c.sinks) {
      at_most(c.sinks - j);
    } else {
      at.slot = c.sinks + (j - c.sinks) % c.ring;
      at_most(c.sinks + c.ring - at.slot);
    }
  }
  if (c.beam) {
    const int32_t* row = c.beam + b * c.slots + at.slot;
    at.block = row[0];
    int64_t same = 1;
    while (same < at.count && row[same] == row[0]) same++;
    at.count = same;
  }
  return at;
}

}  // namespace mmha

// Which keys a block of query rows visits, tile by tile.
//
// A row's spans are turned into one 64-bit word a key (bit i: row i of the block sees the key) by toggling: every
// span flips its row's bit at its start and at its stop, and a running XOR over the keys gives the words. Bit rows
// are transposed 64 x 64. Both cost a few hundred operations a tile, against tens of thousands of FMAs, and only
// tiles that are neither empty nor full pay at all. Inside a mixed tile, gaps that no row sees are skipped too.
#pragma once
#include "attention.h"

namespace mmha {
namespace {

constexpr int kMostRows = kBackwardRows;
constexpr int kMostKeys = kForwardKeys > kBackwardKeys ? kForwardKeys : kBackwardKeys;

// Shorter gaps are computed and blended out: a register tile of keys costs as much when it is half empty.
constexpr int kLeastGap = 16;
constexpr int kMostRuns = kMostKeys / (kLeastGap + 1) + 1;

// A run of neighbouring keys, counted from the tile's first.
struct Run {
  int first, last;
};

// Keys [first, last) of one aligned tile are seen by some row, keys [full_first, full_last) by every row.
struct Tile {
  int64_t first, last;
  int64_t full_first, full_last;
  int runs;
  Run run[kMostRuns];        // ascending; keys outside of them are seen by no row
  uint64_t seen[kMostKeys];  // seen[j - first]; valid unless is_full()

  bool is_full() const { return full_first == first && full_last == last; }
  uint64_t row_bits(int64_t key) const {
    return key >= full_first && key < full_last ? ~uint64_t{0} : seen[key - first];
  }
  bool is_mixed(int64_t key) const { return key < full_first || key >= full_last; }

  void find_runs() {
    const int count = (int)(last - first);
    runs = 1;
    run[0] = {0, count};
    if (is_full()) return;
    for (int j = 0, gap = 0; j < count; j++) {  // the first and the last key are seen
      if (!row_bits(first + j)) {
        gap++;
        continue;
      }
      if (gap >= kLeastGap) {
        run[runs - 1].last = j - gap;
        run[runs++] = {j, count};
      }
      gap = 0;
    }
  }

  // Spells out what full tiles and full keys leave unsaid, for a caller who will hide single pairs.
  void spell_out(int rows) {
    const uint64_t all = rows == 64 ? ~uint64_t{0} : (uint64_t{1} << rows) - 1;
    for (int64_t j = 0; j < last - first; j++)
      if (!is_mixed(first + j)) seen[j] = all;
    full_first = full_last = first;
  }
};

static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

static inline int64_t plan_row(const PlanView& plan, int64_t b, int64_t h, int64_t i) {
  return ((plan.batch == 1 ? 0 : b) * plan.heads + (plan.heads == 1 ? 0 : h)) * plan.q_len + i;
}

// In place: bit j of word i becomes bit i of word j.
static inline void transpose_bits(uint64_t* a) {
  uint64_t mask = 0x00000000ffffffffull;
  for (int width = 32; width != 0; width >>= 1, mask ^= mask << width)
    for (int k = 0; k < 64; k = ((k | width) + 1) & ~width) {
      const uint64_t t = ((a[k] >> width) ^ a[k | width]) & mask;
      a[k] ^= t << width;
      a[k | width] ^= t;
    }
}

// Walks the tiles of `rows` query rows that start at plan row `row`, in ascending order of keys.
struct RowWalk {
  const PlanView* plan;
  int rows;
  int tile_keys;
  int64_t at;                 // keys below this are done
  int64_t stop;               // keys from here on do not matter
  int64_t cursor[kMostRows];  // per row: its first span that may reach beyond `at`; of bits, the row
  int64_t end[kMostRows];

  // row_of(i): the plan's row that is row i of the block.
  template <class F>
  RowWalk(const PlanView& p, int64_t count, int keys, F row_of)
      : plan(&p), rows((int)count), tile_keys(keys), at(0), stop(p.k_len) {
    for (int i = 0; i < rows; i++) {
      const int64_t row = row_of(i);
      cursor[i] = plan->offsets ? plan->offsets[row] : row;
      end[i] = plan->offsets ? plan->offsets[row + 1] : row + 1;
    }
  }
  RowWalk(const PlanView& p, int64_t first_row, int64_t count, int keys)
      : RowWalk(p, count, keys, [&](int i) { return first_row + i; }) {}

  // Restricts the walk to keys [first, last), multiples of the tile's.
  void within(int64_t first, int64_t last) {
    at = first;
    stop = min64(last, plan->k_len);
  }

  // The next tile in which any row sees a key.
  bool next(Tile& tile) {
    while (at < stop) {
      const int64_t base = plan->bits ? at : next_base();
      if (base < 0 || base >= stop) return false;
      at = min64(base + tile_keys, plan->k_len);
      if (fill(base, tile)) return true;
    }
    return false;
  }

  // The tile that starts at `base` alone; false where no row sees any of its keys.
  bool only(int64_t base, Tile& tile) {
    at = min64(base + tile_keys, plan->k_len);
    for (int i = 0; i < rows && !plan->bits; i++) {
      int64_t low = cursor[i], high = end[i];
      while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (plan->spans[middle].stop <= base) low = middle + 1;
        else high = middle;
      }
      cursor[i] = low;
    }
    return fill(base, tile);
  }

 private:
  bool fill(int64_t base, Tile& tile) {
    if (!(plan->bits ? fill_bits(base, tile) : fill_spans(base, tile))) return false;
    tile.find_runs();
    return true;
  }

  int64_t next_base() {
    int64_t first = INT64_MAX;
    for (int i = 0; i < rows; i++) {
      while (cursor[i] < end[i] && plan->spans[cursor[i]].stop <= at) cursor[i]++;
      if (cursor[i] == end[i]) continue;
      const Span s = plan->spans[cursor[i]];
      if (s.start < s.stop) first = min64(first, max64(s.start, at));
    }
    return first == INT64_MAX ? -1 : first / tile_keys * tile_keys;
  }

  bool fill_spans(int64_t base, Tile& tile) {
    tile.first = at;
    tile.last = base;
    tile.full_first = base;
    tile.full_last = at;
    for (int i = 0; i < rows; i++) {
      int64_t current_first = at, current_last = base;  // the row's first span in the tile
      int64_t c = cursor[i];
      while (c < end[i] && plan->spans[c].stop <= base) c++;
      cursor[i] = c;
      for (; c < end[i] && plan->spans[c].start < at; c++) {
        const Span s = plan->spans[c];
        if (s.start >= s.stop) continue;
        if (current_first == at) {
          current_first = max64(s.start, base);
          current_last = min64(s.stop, at);
        }
        tile.first = min64(tile.first, max64(s.start, base));
        tile.last = max64(tile.last, min64(s.stop, at));
      }
      tile.full_first = max64(tile.full_first, current_first);
      tile.full_last = min64(tile.full_last, current_last);
    }
    if (tile.first >= tile.last) return false;
    if (tile.full_first >= tile.full_last) tile.full_first = tile.full_last = tile.first;
    if (!tile.is_full()) toggle(base, tile);
    return true;
  }

  void toggle(int64_t base, Tile& tile) {
    const int64_t count = tile.last - tile.first;
    for (int64_t j = 0; j < count; j++) tile.seen[j] = 0;
    for (int i = 0; i < rows; i++)
      for (int64_t c = cursor[i]; c < end[i] && plan->spans[c].start < at; c++) {
        const Span s = plan->spans[c];
        if (s.start >= s.stop) continue;
        tile.seen[max64(s.start, base) - tile.first] ^= uint64_t{1} << i;
        if (s.stop < tile.last) tile.seen[s.stop - tile.first] ^= uint64_t{1} << i;
      }
    for (int64_t j = 1; j < count; j++) tile.seen[j] ^= tile.seen[j - 1];
  }

  bool fill_bits(int64_t base, Tile& tile) {
    const int64_t words = (at - base + 63) / 64;
    uint64_t any = 0;
    for (int64_t w = 0; w < words; w++) {
      uint64_t* block = tile.seen + 64 * w;
      for (int i = 0; i < 64; i++) block[i] = i < rows ? plan->bits[cursor[i] * plan->words + base / 64 + w] : 0;
      for (int i = 0; i < rows; i++) any |= block[i];
      transpose_bits(block);
    }
    if (!any) return false;
    int64_t first = base, last = at;
    while (!tile.seen[first - base]) first++;
    while (!tile.seen[last - 1 - base]) last--;
    const uint64_t all = rows == 64 ? ~uint64_t{0} : (uint64_t{1} << rows) - 1;
    bool full = true;
    for (int64_t j = first; j < last; j++) {
      tile.seen[j - first] = tile.seen[j - base];
      full &= tile.seen[j - first] == all;
    }
    tile.first = first;
    tile.last = last;
    tile.full_first = first;
    tile.full_last = full ? last : first;
    return true;
  }
};

}  // namespace
}  // namespace mmha

// Counter-based random draws, keyed by (seed, step, layer, purpose): any thread may make any draw,
// in any order, on any instruction set. The numpy twin is edgetrain/reference/random.py.
#pragma once

#include <cstdint>

namespace edgetrain {

enum class Purpose : std::uint64_t {
  initial_weights = 0,
  fixed_signs = 1,
  gradient_codes = 2,
  weight_update = 3,
  shuffle = 4,
  upload = 5,
  branch_codes = 6,
};

struct Key {
  std::uint32_t low;
  std::uint32_t high;
};

Key split(std::uint64_t key);
Key derive(std::uint64_t seed, std::uint64_t step, std::uint64_t layer, Purpose purpose);

// Static, so that every translation unit keeps a copy compiled for its own instruction set.
static inline std::uint32_t random_bits(Key key, std::uint32_t counter) {
  std::uint32_t x = counter * 0x9E3779B9U + key.low;
  x ^= x >> 16;
  x *= 0x7FEB352DU;
  x ^= x >> 15;
  x += key.high;
  x *= 0x846CA68BU;
  x ^= x >> 16;
  return x;
}

// Four bytes share one word of draws.
static inline std::uint32_t random_byte(Key key, std::uint32_t index) {
  return (random_bits(key, index >> 2) >> (8 * (index & 3))) & 0xFFU;
}

}  // namespace edgetrain

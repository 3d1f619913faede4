#include "edgetrain/random.hpp"

namespace edgetrain {

namespace {

// The finaliser of splitmix64 (Steele, Lea and Flood 2014).
std::uint64_t mix(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

}  // namespace

Key split(std::uint64_t key) {
  return {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)};
}

Key derive(std::uint64_t seed, std::uint64_t step, std::uint64_t layer, Purpose purpose) {
  std::uint64_t state = mix(seed);
  state = mix(state ^ step);
  state = mix(state ^ layer);
  return split(mix(state ^ static_cast<std::uint64_t>(purpose)));
}

}  // namespace edgetrain

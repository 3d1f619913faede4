#include "edgetrain/update_codec.hpp"

#include <algorithm>

namespace edgetrain {

namespace {

constexpr std::uint32_t levels = 64;
constexpr std::uint32_t largest_exponent = 7;

// The code's magnitude k for a difference in units of maximum / 64, i.e. scaled / maximum.
std::uint32_t round_at_random(std::uint32_t scaled, std::uint32_t maximum, std::uint32_t random) {
  // Between `lower` and `upper`, the upper with probability (scaled - lower) / (upper - lower).
  std::uint32_t exponent = 0;
  std::uint32_t lower = 0;
  std::uint32_t upper = maximum;
  while (scaled >= upper && exponent < largest_exponent) {
    ++exponent;
    lower = upper;
    upper *= 2;
  }
  const std::uint64_t chance = (static_cast<std::uint64_t>(scaled - lower) << 32) / (upper - lower);
  return chance > random ? std::min(exponent + 1, largest_exponent) : exponent;
}

}  // namespace

std::uint32_t encode_difference(const std::int8_t* before, const std::int8_t* after,
                                std::size_t count, Key key, std::uint8_t* codes) {
  std::uint32_t maximum = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const int moved = after[i] - before[i];
    maximum = std::max(maximum, static_cast<std::uint32_t>(moved < 0 ? -moved : moved));
  }
  for (std::size_t i = 0; i < count; i += 2) {
    std::uint32_t pair = 0;
    for (std::size_t j = i; j < std::min(i + 2, count); ++j) {
      const int moved = after[j] - before[j];
      const auto size = static_cast<std::uint32_t>(moved < 0 ? -moved : moved);
      if (size != 0) {
        const std::uint32_t random = random_bits(key, static_cast<std::uint32_t>(j));
        const std::uint32_t code = round_at_random(size * levels, maximum, random);
        const std::uint32_t sign = moved < 0 && code != 0 ? 8U : 0U;
        pair |= (sign | code) << (4 * (j - i));
      }
    }
    codes[i / 2] = static_cast<std::uint8_t>(pair);
  }
  return maximum;
}

}  // namespace edgetrain

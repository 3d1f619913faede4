// The 4-bit code in which a device sends how its latents moved.
#pragma once

#include <cstddef>
#include <cstdint>

#include "edgetrain/random.hpp"

namespace edgetrain {

// LUQ of after - before, exact in integers: the value of a code is +-2^(k-1) * maximum / 64, and
// its expectation is the difference. Two codes a byte, the low nibble first. Returns the maximum.
std::uint32_t encode_difference(const std::int8_t* before, const std::int8_t* after,
                                std::size_t count, Key key, std::uint8_t* codes);

}  // namespace edgetrain

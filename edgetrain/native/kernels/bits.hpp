// Words of bits to bytes, in plain loops that each instruction set vectorises for itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "edgetrain/kernels.hpp"

namespace edgetrain {

template <class Isa>
struct Bits {
  // panel[32 lanes][4 rows] = 1 and -1 of four words. `minus_one` has 0xFF in the byte of every
  // row that exists; the others become 0.
  static void spread_signs(const std::uint32_t* words, std::uint32_t minus_one,
                           std::int8_t* panel) {
    std::uint32_t packed[lanes];
    for (std::uint32_t lane = 0; lane < lanes; ++lane) {
      const std::uint32_t bits = ((words[0] >> lane) & 1U) | ((words[1] >> lane) & 1U) << 8 |
                                 ((words[2] >> lane) & 1U) << 16 | ((words[3] >> lane) & 1U) << 24;
      // Bytewise, and without a borrow: a set bit becomes 1, an unset one -1, a missing one 0.
      packed[lane] = minus_one - bits * 0xFEU;
    }
    std::memcpy(panel, packed, sizeof packed);
  }

  // out[32] = the codes whose bit is set, zero elsewhere.
  static void select_codes(std::uint32_t word, const std::uint8_t* codes, std::uint8_t* out) {
    for (std::uint32_t lane = 0; lane < lanes; ++lane) {
      out[lane] = ((word >> lane) & 1U) != 0 ? codes[lane] : static_cast<std::uint8_t>(code_zero);
    }
  }
};

}  // namespace edgetrain

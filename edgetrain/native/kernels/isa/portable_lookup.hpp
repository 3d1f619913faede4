// Products by table lookup in plain C++: the twin that every instruction set's must equal.
#pragma once

#include <cstddef>
#include <cstdint>

#include "edgetrain/kernels.hpp"

namespace edgetrain {

struct PortableLookup {
  // table[32]: what five codes add up to, each with the sign that its bit of the entry's number
  // gives it. Codes are bytes with code_zero added.
  static void sum_table(const std::uint8_t* first_four, const std::uint8_t* fifth,
                        std::int16_t* table) {
    for (std::uint32_t entry = 0; entry < lanes; ++entry) {
      std::int32_t sum = 0;
      for (std::uint32_t bit = 0; bit < group_codes; ++bit) {
        const std::int32_t code = (bit < 4 ? first_four[bit] : *fifth) - code_zero;
        sum += ((entry >> bit) & 1U) != 0 ? code : -code;
      }
      table[entry] = static_cast<std::int16_t>(sum);
    }
  }

  // Bit i of index[lane] is bit `lane` of words[places[i] * stride], and unset for no_place.
  static void gather_bits(const std::uint32_t* words, std::size_t stride,
                          const std::uint32_t* places, std::size_t count, std::uint16_t* index) {
    for (std::uint32_t lane = 0; lane < lanes; ++lane) {
      std::uint32_t bits = 0;
      for (std::uint32_t i = 0; i < count; ++i) {
        const std::uint32_t word = places[i] == no_place ? 0 : words[places[i] * stride];
        bits |= ((word >> lane) & 1U) << i;
      }
      index[lane] = static_cast<std::uint16_t>(bits);
    }
  }

  // out[count][32] += the sums over `taps` tables beside one another, looked up by an index each:
  // index[taps][groups / 3][32].
  static void lookup_pixels(const LookupTables& tables, std::size_t count,
                            const std::uint16_t* index, std::size_t index_stride, std::size_t taps,
                            std::int32_t* out) {
    for (std::size_t pixel = 0; pixel < count; ++pixel) {
      for (std::size_t tap = 0; tap < taps; ++tap) {
        add(tables.data + (pixel + tap) * tables.stride, index + tap * index_stride, tables.groups,
            out + pixel * lanes);
      }
    }
  }

  // out[tiles][4][32] += the sums of the tables of four outputs over the pixels:
  // tables[4][pixels][groups], index[pixels][tiles][groups / 3][32].
  static void lookup_outputs(const LookupTables& tables, std::size_t pixels,
                             const std::uint16_t* index, std::size_t index_stride,
                             std::size_t tiles, std::size_t tile_stride, std::int32_t* out,
                             std::size_t out_stride) {
    for (std::size_t tile = 0; tile < tiles; ++tile) {
      for (std::size_t output = 0; output < 4; ++output) {
        for (std::size_t pixel = 0; pixel < pixels; ++pixel) {
          add(tables.data + output * tables.stride + pixel * tables.groups * lanes,
              index + pixel * index_stride + tile * tile_stride, tables.groups,
              out + tile * out_stride + output * lanes);
        }
      }
    }
  }

 private:
  static void add(const std::int16_t* tables, const std::uint16_t* index, std::size_t groups,
                  std::int32_t* out) {
    for (std::size_t group = 0; group < groups; ++group) {
      const std::uint16_t* word = index + group / groups_of_index * lanes;
      const std::size_t shift = group % groups_of_index * group_codes;
      for (std::size_t lane = 0; lane < lanes; ++lane) {
        out[lane] += tables[group * lanes + ((word[lane] >> shift) & 31U)];
      }
    }
  }
};

}  // namespace edgetrain

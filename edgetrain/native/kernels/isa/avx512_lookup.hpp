// Products by table lookup for AVX-512: what five codes add up to under every choice of signs is
// one register of 32 sums, and one permutation looks up 32 of them.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "edgetrain/kernels.hpp"

namespace edgetrain {

struct Avx512Lookup {
  static void sum_table(const std::uint8_t* first_four, const std::uint8_t* fifth,
                        std::int16_t* table) {
    // The bits of 0, 1, ... 31 as signs, two to a product; the second partner of the fifth is none.
    const __m512i counter = _mm512_loadu_si512(counters);
    const __m512i signs01 = signs_of(counter, 0, 1);
    const __m512i signs23 = signs_of(counter, 2, 3);
    const __m512i signs4 = _mm512_and_si512(signs_of(counter, 4, 4), _mm512_set1_epi16(0xFF));
    const __m512i zero = _mm512_set1_epi8(code_zero);
    const __m512i excess = _mm512_add_epi16(
        _mm512_maddubs_epi16(zero, signs01),
        _mm512_add_epi16(_mm512_maddubs_epi16(zero, signs23), _mm512_maddubs_epi16(zero, signs4)));
    const __m512i sum =
        _mm512_add_epi16(_mm512_add_epi16(_mm512_maddubs_epi16(pair(first_four), signs01),
                                          _mm512_maddubs_epi16(pair(first_four + 2), signs23)),
                         _mm512_sub_epi16(_mm512_maddubs_epi16(pair(fifth), signs4), excess));
    _mm512_storeu_si512(table, sum);
  }

  static void gather_bits(const std::uint32_t* words, std::size_t stride,
                          const std::uint32_t* places, std::size_t count, std::uint16_t* index) {
    __m512i bits = _mm512_setzero_si512();
    __m512i value = _mm512_set1_epi16(1);
    for (std::size_t i = 0; i < count; ++i) {
      if (places[i] != no_place) {
        bits = _mm512_mask_add_epi16(bits, words[places[i] * stride], bits, value);
      }
      value = _mm512_add_epi16(value, value);
    }
    _mm512_storeu_si512(index, bits);
  }

  static void lookup_pixels(const LookupTables& tables, std::size_t count,
                            const std::uint16_t* index, std::size_t index_stride, std::size_t taps,
                            std::int32_t* out) {
    if (taps == 3) {
      all_pixels<3>(tables, count, index, index_stride, out);
    } else {
      all_pixels<2>(tables, count, index, index_stride, out);
    }
  }

  static void lookup_outputs(const LookupTables& tables, std::size_t pixels,
                             const std::uint16_t* index, std::size_t index_stride,
                             std::size_t tiles, std::size_t tile_stride, std::int32_t* out,
                             std::size_t out_stride) {
    std::size_t tile = 0;
    for (; tile + 2 <= tiles; tile += 2) {
      outputs<2>(tables, pixels, index + tile * tile_stride, index_stride, tile_stride,
                 out + tile * out_stride, out_stride);
    }
    if (tile < tiles) {
      outputs<1>(tables, pixels, index + tile * tile_stride, index_stride, tile_stride,
                 out + tile * out_stride, out_stride);
    }
  }

 private:
  static constexpr std::uint16_t counters[lanes] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                                    11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                                    22, 23, 24, 25, 26, 27, 28, 29, 30, 31};

  static __m512i load(const void* address) { return _mm512_loadu_si512(address); }

  // A load that the compiler may not repeat at every use: there is one a cycle.
  static __m512i load_once(const void* address) {
    __m512i value = load(address);
    __asm__("" : "+v"(value));
    return value;
  }

  // In every 16 bits, 1 or -1 by two bits of the counter, a byte each.
  static __m512i signs_of(__m512i counter, int low, int high) {
    const __mmask32 first =
        _mm512_test_epi16_mask(counter, _mm512_set1_epi16(static_cast<std::int16_t>(1 << low)));
    const __mmask32 second =
        _mm512_test_epi16_mask(counter, _mm512_set1_epi16(static_cast<std::int16_t>(1 << high)));
    const __m512i low_bytes =
        _mm512_mask_blend_epi16(first, _mm512_set1_epi16(0xFF), _mm512_set1_epi16(1));
    const __m512i high_bytes = _mm512_mask_blend_epi16(
        second, _mm512_set1_epi16(static_cast<std::int16_t>(0xFF00)), _mm512_set1_epi16(0x100));
    return _mm512_or_si512(low_bytes, high_bytes);
  }

  static __m512i pair(const std::uint8_t* codes) {
    std::int16_t bytes;
    std::memcpy(&bytes, codes, 2);
    return _mm512_set1_epi16(bytes);
  }

  // out[32] += sums[32], from 16 bits to 32.
  static void widen(__m512i sums, std::int32_t* out) {
    const __m512i low = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(sums));
    const __m512i high = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(sums, 1));
    _mm512_storeu_si512(out, _mm512_add_epi32(load(out), low));
    _mm512_storeu_si512(out + 16, _mm512_add_epi32(load(out + 16), high));
  }

  template <int Taps>
  static void all_pixels(const LookupTables& tables, std::size_t count, const std::uint16_t* index,
                         std::size_t index_stride, std::int32_t* out) {
    const auto from = [&](std::size_t pixel) {
      return LookupTables{tables.data + pixel * tables.stride, tables.stride, tables.groups};
    };
    std::size_t pixel = 0;
    for (; pixel + 8 <= count; pixel += 8) {
      pixels<8, Taps>(from(pixel), index, index_stride, out + pixel * lanes);
    }
    for (; pixel + 4 <= count; pixel += 4) {
      pixels<4, Taps>(from(pixel), index, index_stride, out + pixel * lanes);
    }
    for (; pixel < count; ++pixel) {
      pixels<1, Taps>(from(pixel), index, index_stride, out + pixel * lanes);
    }
  }

  // A table serves as many pixels as there are taps beside one another.
  template <int Count, int Taps>
  static void pixels(const LookupTables& given, const std::uint16_t* index,
                     std::size_t index_stride, std::int32_t* out) {
    __m512i sums[Count];
    for (auto& sum : sums) {
      sum = _mm512_setzero_si512();
    }
    const std::int16_t* tables = given.data;
    std::size_t left = given.groups;
    for (const std::uint16_t* word = index; left > 0; word += lanes) {
      __m512i choice[Taps];
      for (int tap = 0; tap < Taps; ++tap) {
        choice[tap] = load(word + static_cast<std::size_t>(tap) * index_stride);
      }
      const std::size_t here = std::min(left, groups_of_index);
      left -= here;
      for (std::size_t group = 0; group < here; ++group, tables += lanes) {
        for (int column = 0; column < Count + Taps - 1; ++column) {
          const __m512i table = load_once(tables + static_cast<std::size_t>(column) * given.stride);
          for (int tap = 0; tap < Taps; ++tap) {
            const int pixel = column - tap;
            if (pixel >= 0 && pixel < Count) {
              sums[pixel] =
                  _mm512_add_epi16(sums[pixel], _mm512_permutexvar_epi16(choice[tap], table));
            }
          }
        }
        for (int tap = 0; tap < Taps; ++tap) {
          choice[tap] = _mm512_srli_epi16(choice[tap], group_codes);
        }
      }
    }
    for (int pixel = 0; pixel < Count; ++pixel) {
      widen(sums[pixel], out + static_cast<std::size_t>(pixel) * lanes);
    }
  }

  template <int Tiles>
  static void outputs(const LookupTables& given, std::size_t pixels, const std::uint16_t* index,
                      std::size_t index_stride, std::size_t tile_stride, std::int32_t* out,
                      std::size_t out_stride) {
    __m512i sums[4][Tiles];
    for (auto& row : sums) {
      for (auto& sum : row) {
        sum = _mm512_setzero_si512();
      }
    }
    const std::int16_t* tables = given.data;
    for (std::size_t pixel = 0; pixel < pixels; ++pixel, index += index_stride) {
      std::size_t left = given.groups;
      for (const std::uint16_t* word = index; left > 0; word += lanes) {
        __m512i choice[Tiles];
        for (int tile = 0; tile < Tiles; ++tile) {
          choice[tile] = load(word + static_cast<std::size_t>(tile) * tile_stride);
        }
        const std::size_t here = std::min(left, groups_of_index);
        left -= here;
        for (std::size_t group = 0; group < here; ++group, tables += lanes) {
          for (int output = 0; output < 4; ++output) {
            const __m512i table =
                load_once(tables + static_cast<std::size_t>(output) * given.stride);
            for (int tile = 0; tile < Tiles; ++tile) {
              sums[output][tile] = _mm512_add_epi16(sums[output][tile],
                                                    _mm512_permutexvar_epi16(choice[tile], table));
            }
          }
          for (int tile = 0; tile < Tiles; ++tile) {
            choice[tile] = _mm512_srli_epi16(choice[tile], group_codes);
          }
        }
      }
    }
    for (int output = 0; output < 4; ++output) {
      for (int tile = 0; tile < Tiles; ++tile) {
        widen(sums[output][tile], out + static_cast<std::size_t>(tile) * out_stride +
                                      static_cast<std::size_t>(output) * lanes);
      }
    }
  }
};

}  // namespace edgetrain

// Micro-kernels for AVX-512 with VNNI and VPOPCNTDQ: 8 rows x 32 channels in registers.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "avx512_lookup.hpp"
#include "bytes256.hpp"
#include "edgetrain/kernels.hpp"

namespace edgetrain {

struct Avx512 : Bytes256<Avx512> {
  static constexpr const char* name = "avx512";
  static constexpr bool has_lookup = true;
  using Lookup = Avx512Lookup;

  static std::uint32_t sign_word(const std::int8_t* latents) {
    return ~static_cast<std::uint32_t>(
        _mm256_movepi8_mask(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(latents))));
  }

  static std::uint32_t at_least(const std::int32_t* values, const std::int32_t* thresholds) {
    const std::uint32_t low = _mm512_cmpge_epi32_mask(load(values), load(thresholds));
    const std::uint32_t high = _mm512_cmpge_epi32_mask(load(values + 16), load(thresholds + 16));
    return low | high << 16;
  }

  static void xnor(const std::uint32_t* rows, std::size_t row_stride, std::size_t words,
                   std::size_t count, const std::uint32_t* panel, std::int32_t inputs,
                   bool accumulate, std::int32_t* tile) {
    const Signs signs{panel, row_stride, words, inputs, accumulate};
    std::size_t row = 0;
    for (; row + 8 <= count; row += 8) {
      xnor_rows<8>(rows + row * row_stride, signs, tile + row * lanes);
    }
    for (; row + 4 <= count; row += 4) {
      xnor_rows<4>(rows + row * row_stride, signs, tile + row * lanes);
    }
    for (; row < count; ++row) {
      xnor_rows<1>(rows + row * row_stride, signs, tile + row * lanes);
    }
  }

  static void dot(const ByteRows& rows, std::size_t count, const std::int8_t* panel,
                  std::size_t quads, const std::int32_t* initial, std::int32_t multiplier,
                  bool accumulate, std::int32_t* out, std::size_t out_stride) {
    const Epilogue epilogue{initial, multiplier, accumulate, out_stride};
    std::size_t row = 0;
    for (; row + 8 <= count; row += 8) {
      dot_rows<8>(rows.from(row), panel, quads, epilogue, out + row * out_stride);
    }
    for (; row + 4 <= count; row += 4) {
      dot_rows<4>(rows.from(row), panel, quads, epilogue, out + row * out_stride);
    }
    for (; row < count; ++row) {
      dot_rows<1>(rows.from(row), panel, quads, epilogue, out + row * out_stride);
    }
  }

 private:
  struct Signs {
    const std::uint32_t* panel;
    std::size_t row_stride;
    std::size_t words;
    std::int32_t inputs;
    bool accumulate;
  };

  struct Epilogue {
    const std::int32_t* initial;
    std::int32_t multiplier;
    bool accumulate;
    std::size_t stride;
  };

  static __m512i load(const void* address) { return _mm512_loadu_si512(address); }

  // As _mm512_dpbusd_epi32. GCC 12 copies the sum before and after every use of the intrinsic; the
  // instruction itself works in place.
  static __m512i plus_products(__m512i sum, __m512i values, __m512i weights) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(values), "v"(weights));
    return sum;
  }

  template <int Rows>
  static void xnor_rows(const std::uint32_t* rows, const Signs& given, std::int32_t* tile) {
    __m512i differing[Rows][2];
    for (int row = 0; row < Rows; ++row) {
      differing[row][0] = differing[row][1] = _mm512_setzero_si512();
    }
    const std::uint32_t* panel = given.panel;
    for (std::size_t word = 0; word < given.words; ++word) {
      const __m512i low = load(panel + word * lanes);
      const __m512i high = load(panel + word * lanes + 16);
      for (int row = 0; row < Rows; ++row) {
        const std::size_t at = static_cast<std::size_t>(row) * given.row_stride + word;
        const __m512i signs = _mm512_set1_epi32(static_cast<int>(rows[at]));
        differing[row][0] =
            _mm512_add_epi32(differing[row][0], _mm512_popcnt_epi32(_mm512_xor_si512(signs, low)));
        differing[row][1] =
            _mm512_add_epi32(differing[row][1], _mm512_popcnt_epi32(_mm512_xor_si512(signs, high)));
      }
    }
    const __m512i all = _mm512_set1_epi32(given.inputs);
    for (int row = 0; row < Rows; ++row) {
      for (int half = 0; half < 2; ++half) {
        std::int32_t* target = tile + static_cast<std::size_t>(row) * lanes + 16 * half;
        const __m512i before = given.accumulate ? load(target) : _mm512_setzero_si512();
        const __m512i product = _mm512_sub_epi32(all, _mm512_slli_epi32(differing[row][half], 1));
        _mm512_storeu_si512(target, _mm512_add_epi32(before, product));
      }
    }
  }

  template <int Rows>
  static void dot_rows(const ByteRows& rows, const std::int8_t* panel, std::size_t quads,
                       const Epilogue& epilogue, std::int32_t* out) {
    // The usual multiplier of one leaves nothing to do after the sums.
    const bool plain = epilogue.multiplier == 1;
    const __m512i zero = _mm512_setzero_si512();
    const __m512i initial[2] = {load(epilogue.initial), load(epilogue.initial + 16)};
    __m512i sums[Rows][2];
    for (int row = 0; row < Rows; ++row) {
      sums[row][0] = plain ? initial[0] : zero;
      sums[row][1] = plain ? initial[1] : zero;
    }
    const std::uint8_t* data = rows.data;
    const std::size_t stride = rows.row_stride;
    std::size_t quad = 0;
    // There is one quad at least; a loop that may not run would keep the sums in memory.
    do {
      const __m512i low = load(panel + quad * 4 * lanes);
      const __m512i high = load(panel + quad * 4 * lanes + 64);
      for (int row = 0; row < Rows; ++row) {
        std::int32_t bytes;
        std::memcpy(&bytes, data + static_cast<std::size_t>(row) * stride, 4);
        const __m512i values = _mm512_set1_epi32(bytes);
        sums[row][0] = plus_products(sums[row][0], values, low);
        sums[row][1] = plus_products(sums[row][1], values, high);
      }
      data += rows.quad_stride;
    } while (++quad < quads);
    const __m512i multiplier = _mm512_set1_epi32(epilogue.multiplier);
    for (int row = 0; row < Rows; ++row) {
      for (int half = 0; half < 2; ++half) {
        std::int32_t* target = out + static_cast<std::size_t>(row) * epilogue.stride + 16 * half;
        __m512i result = sums[row][half];
        if (!plain) {
          result = _mm512_add_epi32(initial[half], _mm512_mullo_epi32(result, multiplier));
        }
        if (epilogue.accumulate) {
          result = _mm512_add_epi32(result, load(target));
        }
        _mm512_storeu_si512(target, result);
      }
    }
  }
};

}  // namespace edgetrain

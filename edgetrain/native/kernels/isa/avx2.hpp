// Micro-kernels for AVX2. Without VNNI a product of bytes goes through 16 bits, even and odd bytes
// apart, because the one-instruction form saturates.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "bytes256.hpp"
#include "edgetrain/kernels.hpp"

namespace edgetrain {

struct Avx2 : Bytes256<Avx2> {
  static constexpr const char* name = "avx2";
  static constexpr bool has_lookup = false;

  static std::uint32_t sign_word(const std::int8_t* latents) {
    return ~static_cast<std::uint32_t>(_mm256_movemask_epi8(load(latents)));
  }

  static std::uint32_t at_least(const std::int32_t* values, const std::int32_t* thresholds) {
    std::uint32_t below = 0;
    for (unsigned part = 0; part < 4; ++part) {
      const __m256i smaller =
          _mm256_cmpgt_epi32(load(thresholds + 8 * part), load(values + 8 * part));
      below |= static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(smaller)))
               << (8 * part);
    }
    return ~below;
  }

  [[gnu::noinline]] static void xnor(const std::uint32_t* rows, std::size_t row_stride,
                                     std::size_t words, std::size_t count,
                                     const std::uint32_t* panel, std::int32_t inputs,
                                     bool accumulate, std::int32_t* tile) {
    for (std::size_t row = 0; row < count; ++row) {
      for (std::size_t part = 0; part < 4; ++part) {
        xnor_part(rows + row * row_stride, words, panel + 8 * part, inputs, accumulate,
                  tile + row * lanes + 8 * part);
      }
    }
  }

  [[gnu::noinline]] static void dot(const ByteRows& rows, std::size_t count,
                                    const std::int8_t* panel, std::size_t quads,
                                    const std::int32_t* initial, std::int32_t multiplier,
                                    bool accumulate, std::int32_t* out, std::size_t out_stride) {
    for (std::size_t half = 0; half < 2; ++half) {
      const Epilogue epilogue{initial + 16 * half, multiplier, accumulate, out_stride};
      const std::int8_t* weights = panel + 64 * half;
      std::size_t row = 0;
      for (; row + 4 <= count; row += 4) {
        dot_rows<4>(rows.from(row), weights, quads, epilogue, out + row * out_stride + 16 * half);
      }
      for (; row < count; ++row) {
        dot_rows<1>(rows.from(row), weights, quads, epilogue, out + row * out_stride + 16 * half);
      }
    }
  }

 private:
  struct Epilogue {
    const std::int32_t* initial;
    std::int32_t multiplier;
    bool accumulate;
    std::size_t stride;
  };

  static __m256i load(const void* address) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(address));
  }
  static void store(void* address, __m256i value) {
    _mm256_storeu_si256(static_cast<__m256i*>(address), value);
  }

  // Set bits of every byte, by looking up its two nibbles (Mula).
  static __m256i byte_population(__m256i x) {
    const __m256i counts = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,  //
                                            0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i low = _mm256_shuffle_epi8(counts, _mm256_and_si256(x, nibble));
    const __m256i high =
        _mm256_shuffle_epi8(counts, _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble));
    return _mm256_add_epi8(low, high);
  }

  static void xnor_part(const std::uint32_t* row, std::size_t words, const std::uint32_t* panel,
                        std::int32_t inputs, bool accumulate, std::int32_t* tile) {
    // A byte holds the counts of 31 words at most: 31 * 8 = 248.
    constexpr std::size_t run = 31;
    __m256i differing = _mm256_setzero_si256();
    for (std::size_t begin = 0; begin < words; begin += run) {
      const std::size_t end = begin + run < words ? begin + run : words;
      __m256i bytes = _mm256_setzero_si256();
      for (std::size_t word = begin; word < end; ++word) {
        const __m256i signs = _mm256_set1_epi32(static_cast<int>(row[word]));
        bytes = _mm256_add_epi8(
            bytes, byte_population(_mm256_xor_si256(signs, load(panel + word * lanes))));
      }
      const __m256i pairs = _mm256_maddubs_epi16(bytes, _mm256_set1_epi8(1));
      differing = _mm256_add_epi32(differing, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    const __m256i before = accumulate ? load(tile) : _mm256_setzero_si256();
    const __m256i product =
        _mm256_sub_epi32(_mm256_set1_epi32(inputs), _mm256_slli_epi32(differing, 1));
    store(tile, _mm256_add_epi32(before, product));
  }

  template <int Rows>
  static void dot_rows(const ByteRows& rows, const std::int8_t* panel, std::size_t quads,
                       const Epilogue& epilogue, std::int32_t* out) {
    __m256i sums[Rows][2];
    for (int row = 0; row < Rows; ++row) {
      sums[row][0] = sums[row][1] = _mm256_setzero_si256();
    }
    const __m256i low_byte = _mm256_set1_epi16(255);
    const std::uint8_t* data = rows.data;
    const std::size_t stride = rows.row_stride;
    for (std::size_t quad = 0; quad < quads; ++quad, data += rows.quad_stride) {
      __m256i even[2];
      __m256i odd[2];
      for (int part = 0; part < 2; ++part) {
        const __m256i weights = load(panel + quad * 4 * lanes + 32 * part);
        even[part] = _mm256_srai_epi16(_mm256_slli_epi16(weights, 8), 8);
        odd[part] = _mm256_srai_epi16(weights, 8);
      }
      for (int row = 0; row < Rows; ++row) {
        std::int32_t bytes;
        std::memcpy(&bytes, data + static_cast<std::size_t>(row) * stride, 4);
        const __m256i values = _mm256_set1_epi32(bytes);
        const __m256i value_even = _mm256_and_si256(values, low_byte);
        const __m256i value_odd = _mm256_srli_epi16(values, 8);
        for (int part = 0; part < 2; ++part) {
          sums[row][part] = _mm256_add_epi32(
              sums[row][part], _mm256_add_epi32(_mm256_madd_epi16(value_even, even[part]),
                                                _mm256_madd_epi16(value_odd, odd[part])));
        }
      }
    }
    const __m256i multiplier = _mm256_set1_epi32(epilogue.multiplier);
    for (int row = 0; row < Rows; ++row) {
      for (int part = 0; part < 2; ++part) {
        std::int32_t* target = out + static_cast<std::size_t>(row) * epilogue.stride + 8 * part;
        __m256i result = _mm256_add_epi32(load(epilogue.initial + 8 * part),
                                          _mm256_mullo_epi32(sums[row][part], multiplier));
        if (epilogue.accumulate) {
          result = _mm256_add_epi32(result, load(target));
        }
        store(target, result);
      }
    }
  }
};

}  // namespace edgetrain

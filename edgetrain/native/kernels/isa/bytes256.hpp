// Micro-kernels on bytes in 256 bits, which AVX2 and AVX-512 share. The parameter keeps the copies
// apart: each is compiled for its own instruction set, and the linker must not merge them.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "edgetrain/kernels.hpp"

namespace edgetrain {

template <class Isa>
struct Bytes256 {
  template <ByteForm form>
  static void interleave(const void* rows, std::size_t stride, std::int8_t* out) {
    const auto* bytes = static_cast<const std::uint8_t*>(rows);
    const __m256i row0 = formed<form>(load(bytes));
    const __m256i row1 = formed<form>(load(bytes + stride));
    const __m256i row2 = formed<form>(load(bytes + 2 * stride));
    const __m256i row3 = formed<form>(load(bytes + 3 * stride));
    const __m256i low01 = _mm256_unpacklo_epi8(row0, row1);
    const __m256i high01 = _mm256_unpackhi_epi8(row0, row1);
    const __m256i low23 = _mm256_unpacklo_epi8(row2, row3);
    const __m256i high23 = _mm256_unpackhi_epi8(row2, row3);
    // Of every 16 lanes, the quads of lanes 0, 4, 8 and 12 on.
    const __m256i quad0 = _mm256_unpacklo_epi16(low01, low23);
    const __m256i quad4 = _mm256_unpackhi_epi16(low01, low23);
    const __m256i quad8 = _mm256_unpacklo_epi16(high01, high23);
    const __m256i quad12 = _mm256_unpackhi_epi16(high01, high23);
    store(out, _mm256_permute2x128_si256(quad0, quad4, 0x20));
    store(out + 32, _mm256_permute2x128_si256(quad8, quad12, 0x20));
    store(out + 64, _mm256_permute2x128_si256(quad0, quad4, 0x31));
    store(out + 96, _mm256_permute2x128_si256(quad8, quad12, 0x31));
  }

  template <ByteForm form>
  static void transpose(const std::int8_t* rows, std::size_t stride, std::int8_t* out) {
    for (std::size_t row = 0; row < lanes; row += 8) {
      transpose_eight<form>(rows + row * stride, stride, out + 4 * row);
    }
  }

  static void update_latents(std::int8_t* latents, const std::int32_t* gradient, Key key,
                             std::uint32_t index, std::uint32_t step) {
    const __m256i draws = eight_draws(key, index);
    // A step of 255 levels crosses the whole range, and this much still fits 16 bits.
    const auto limited = static_cast<std::int16_t>(std::min(step, 65280U));
    const __m256i low = moved(latents, gradient, _mm256_castsi256_si128(draws), limited);
    const __m256i high =
        moved(latents + 16, gradient + 16, _mm256_extracti128_si256(draws, 1), limited);
    const __m256i result = _mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0xD8);
    store(latents, _mm256_max_epi8(result, _mm256_set1_epi8(-127)));
  }

  static void decode(const std::uint8_t* codes, std::uint8_t* bytes) {
    const __m256i table =
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(code_bytes)));
    const __m256i pairs =
        _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
    const __m256i nibbles =
        _mm256_and_si256(_mm256_or_si256(pairs, _mm256_slli_epi16(pairs, 4)), _mm256_set1_epi8(15));
    store(bytes, _mm256_shuffle_epi8(table, nibbles));
  }

 private:
  static __m256i load(const void* address) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(address));
  }
  static void store(void* address, __m256i value) {
    _mm256_storeu_si256(static_cast<__m256i*>(address), value);
  }

  template <ByteForm form>
  static __m256i formed(__m256i bytes) {
    if constexpr (form == ByteForm::signs) {
      return _mm256_or_si256(_mm256_cmpgt_epi8(_mm256_setzero_si256(), bytes), _mm256_set1_epi8(1));
    } else if constexpr (form == ByteForm::centred) {
      return _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
    } else {
      return bytes;
    }
  }

  template <ByteForm form>
  static void transpose_eight(const std::int8_t* rows, std::size_t stride, std::int8_t* out) {
    __m256i row[8];
    for (std::size_t i = 0; i < 8; ++i) {
      row[i] = formed<form>(load(rows + i * stride));
    }
    // four[k][j]: quads j and j + 4 of rows 4 k to 4 k + 3.
    __m256i four[2][4];
    for (std::size_t k = 0; k < 2; ++k) {
      const __m256i* from = row + 4 * k;
      const __m256i low01 = _mm256_unpacklo_epi32(from[0], from[1]);
      const __m256i high01 = _mm256_unpackhi_epi32(from[0], from[1]);
      const __m256i low23 = _mm256_unpacklo_epi32(from[2], from[3]);
      const __m256i high23 = _mm256_unpackhi_epi32(from[2], from[3]);
      four[k][0] = _mm256_unpacklo_epi64(low01, low23);
      four[k][1] = _mm256_unpackhi_epi64(low01, low23);
      four[k][2] = _mm256_unpacklo_epi64(high01, high23);
      four[k][3] = _mm256_unpackhi_epi64(high01, high23);
    }
    for (std::size_t j = 0; j < 4; ++j) {
      store(out + 4 * lanes * j, _mm256_permute2x128_si256(four[0][j], four[1][j], 0x20));
      store(out + 4 * lanes * (j + 4), _mm256_permute2x128_si256(four[0][j], four[1][j], 0x31));
    }
  }

  // random_bits of eight counters from `index`.
  static __m256i eight_draws(Key key, std::uint32_t index) {
    const __m256i counter =
        _mm256_add_epi32(splat(index), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    __m256i x = _mm256_add_epi32(_mm256_mullo_epi32(counter, splat(0x9E3779B9U)), splat(key.low));
    x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 16));
    x = _mm256_mullo_epi32(x, splat(0x7FEB352DU));
    x = _mm256_xor_si256(x, _mm256_srli_epi32(x, 15));
    x = _mm256_mullo_epi32(_mm256_add_epi32(x, splat(key.high)), splat(0x846CA68BU));
    return _mm256_xor_si256(x, _mm256_srli_epi32(x, 16));
  }

  static __m256i splat(std::uint32_t value) {
    return _mm256_set1_epi32(static_cast<std::int32_t>(value));
  }

  // Sixteen latents after the step, in 16 bits; the draws are bytes.
  static __m256i moved(const std::int8_t* latents, const std::int32_t* gradient, __m128i draws,
                       std::int16_t step) {
    const __m256i size = _mm256_srli_epi16(
        _mm256_add_epi16(_mm256_cvtepu8_epi16(draws), _mm256_set1_epi16(step)), 8);
    // Saturation keeps the sign, which is all that counts.
    const __m256i narrow =
        _mm256_permute4x64_epi64(_mm256_packs_epi32(load(gradient), load(gradient + 8)), 0xD8);
    const __m256i before =
        _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(latents)));
    return _mm256_sub_epi16(before, _mm256_sign_epi16(size, narrow));
  }
};

}  // namespace edgetrain

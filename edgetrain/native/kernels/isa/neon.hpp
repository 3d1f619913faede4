// Micro-kernels for 64-bit ARM. The products of bytes differ between processors; the parameter
// brings them, and keeps the copies apart that are compiled for different instruction sets.
#pragma once

#include <arm_neon.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "edgetrain/kernels.hpp"

namespace edgetrain {

template <class Product>
struct NeonKernels {
  static std::uint32_t sign_word(const std::int8_t* latents) {
    return packed(vcgezq_s8(vld1q_s8(latents)), vcgezq_s8(vld1q_s8(latents + 16)));
  }

  static std::uint32_t at_least(const std::int32_t* values, const std::int32_t* thresholds) {
    return packed(sixteen_at_least(values, thresholds),
                  sixteen_at_least(values + 16, thresholds + 16));
  }

  static void xnor(const std::uint32_t* rows, std::size_t row_stride, std::size_t words,
                   std::size_t count, const std::uint32_t* panel, std::int32_t inputs,
                   bool accumulate, std::int32_t* tile) {
    // A byte holds the counts of 31 words at most: 31 * 8 = 248.
    constexpr std::size_t run = 31;
    std::size_t begin = 0;
    do {
      const std::uint32_t* from = rows + begin;
      const Signs signs{panel + begin * lanes, row_stride, std::min(run, words - begin),
                        begin == 0 ? inputs : 0, accumulate || begin > 0};
      std::size_t row = 0;
      for (; row + 4 <= count; row += 4) {
        xnor_rows<4>(from + row * row_stride, signs, tile + row * lanes);
      }
      for (; row < count; ++row) {
        xnor_rows<1>(from + row * row_stride, signs, tile + row * lanes);
      }
      begin += run;
    } while (begin < words);
  }

  static void dot(const ByteRows& rows, std::size_t count, const std::int8_t* panel,
                  std::size_t quads, const std::int32_t* initial, std::int32_t multiplier,
                  bool accumulate, std::int32_t* out, std::size_t out_stride) {
    constexpr std::size_t width = 4 * Product::vectors;
    for (std::size_t first = 0; first < lanes; first += width) {
      const std::int8_t* weights = panel + 4 * first;
      std::int32_t corrected[width];
      correct(weights, quads, initial + first, multiplier, corrected);
      const Epilogue epilogue{corrected, multiplier, accumulate, out_stride};
      std::int32_t* to = out + first;
      std::size_t row = 0;
      for (; row + 4 <= count; row += 4) {
        dot_rows<4>(rows.from(row), weights, quads, epilogue, to + row * out_stride);
      }
      for (; row < count; ++row) {
        dot_rows<1>(rows.from(row), weights, quads, epilogue, to + row * out_stride);
      }
    }
  }

  template <ByteForm form>
  static void interleave(const void* rows, std::size_t stride, std::int8_t* out) {
    const auto* bytes = static_cast<const std::int8_t*>(rows);
    for (std::size_t half = 0; half < lanes; half += 16) {
      int8x16x4_t four;
      for (std::size_t row = 0; row < 4; ++row) {
        four.val[row] = formed<form>(vld1q_s8(bytes + row * stride + half));
      }
      vst4q_s8(out + 4 * half, four);
    }
  }

  template <ByteForm form>
  static void transpose(const std::int8_t* rows, std::size_t stride, std::int8_t* out) {
    for (std::size_t row = 0; row < lanes; row += 4) {
      for (std::size_t half = 0; half < 2; ++half) {
        transpose_four<form>(rows + row * stride + 16 * half, stride,
                             out + 16 * lanes * half + 4 * row);
      }
    }
  }

  static void update_latents(std::int8_t* latents, const std::int32_t* gradient, Key key,
                             std::uint32_t index, std::uint32_t step) {
    // A step of 255 levels crosses the whole range, and this much still fits 16 bits.
    const auto limited = static_cast<std::uint16_t>(std::min(step, 65280U));
    for (std::uint32_t half = 0; half < 2; ++half) {
      std::int8_t* sixteen = latents + 16 * half;
      const std::int32_t* demand = gradient + 16 * half;
      const uint8x16_t draws = vreinterpretq_u8_u32(four_draws(key, index + 4 * half));
      const int8x16_t before = vld1q_s8(sixteen);
      const int8x8_t low =
          moved(vget_low_s8(before), demand, vaddw_u8(vdupq_n_u16(limited), vget_low_u8(draws)));
      const int8x8_t high = moved(vget_high_s8(before), demand + 8,
                                  vaddw_u8(vdupq_n_u16(limited), vget_high_u8(draws)));
      vst1q_s8(sixteen, vmaxq_s8(vcombine_s8(low, high), vdupq_n_s8(-127)));
    }
  }

  static void decode(const std::uint8_t* codes, std::uint8_t* bytes) {
    const uint8x16_t table = vld1q_u8(code_bytes);
    const uint8x16_t pairs = vld1q_u8(codes);
    uint8x16x2_t both;
    both.val[0] = vqtbl1q_u8(table, vandq_u8(pairs, vdupq_n_u8(15)));
    both.val[1] = vqtbl1q_u8(table, vshrq_n_u8(pairs, 4));
    vst2q_u8(bytes, both);
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

  // Bit i is set where byte i of both is.
  static std::uint32_t packed(uint8x16_t low, uint8x16_t high) {
    const uint8x16_t bits = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201U));
    const uint8x16_t pairs = vpaddq_u8(vandq_u8(low, bits), vandq_u8(high, bits));
    const uint8x16_t quads = vpaddq_u8(pairs, pairs);
    return vgetq_lane_u32(vreinterpretq_u32_u8(vpaddq_u8(quads, quads)), 0);
  }

  static uint16x8_t eight_at_least(const std::int32_t* values, const std::int32_t* thresholds) {
    const uint32x4_t low = vcgeq_s32(vld1q_s32(values), vld1q_s32(thresholds));
    const uint32x4_t high = vcgeq_s32(vld1q_s32(values + 4), vld1q_s32(thresholds + 4));
    return vuzp1q_u16(vreinterpretq_u16_u32(low), vreinterpretq_u16_u32(high));
  }

  static uint8x16_t sixteen_at_least(const std::int32_t* values, const std::int32_t* thresholds) {
    return vuzp1q_u8(vreinterpretq_u8_u16(eight_at_least(values, thresholds)),
                     vreinterpretq_u8_u16(eight_at_least(values + 8, thresholds + 8)));
  }

  // Half a tile at a time: 4 rows of 16 lanes fill half of the registers.
  template <int Rows>
  static void xnor_rows(const std::uint32_t* rows, const Signs& given, std::int32_t* tile) {
    for (std::size_t half = 0; half < lanes; half += 16) {
      uint8x16_t differing[Rows][4];
      for (int row = 0; row < Rows; ++row) {
        for (int part = 0; part < 4; ++part) {
          differing[row][part] = vdupq_n_u8(0);
        }
      }
      const std::uint32_t* panel = given.panel + half;
      for (std::size_t word = 0; word < given.words; ++word) {
        uint32x4_t signs[Rows];
        for (int row = 0; row < Rows; ++row) {
          signs[row] = vdupq_n_u32(rows[static_cast<std::size_t>(row) * given.row_stride + word]);
        }
        for (int part = 0; part < 4; ++part) {
          const uint32x4_t weights = vld1q_u32(panel + word * lanes + 4 * part);
          for (int row = 0; row < Rows; ++row) {
            const uint8x16_t bits = vreinterpretq_u8_u32(veorq_u32(signs[row], weights));
            differing[row][part] = vaddq_u8(differing[row][part], vcntq_u8(bits));
          }
        }
      }
      for (int row = 0; row < Rows; ++row) {
        for (int part = 0; part < 4; ++part) {
          std::int32_t* target = tile + static_cast<std::size_t>(row) * lanes + half + 4 * part;
          const uint32x4_t count = vpaddlq_u16(vpaddlq_u8(differing[row][part]));
          const int32x4_t before = given.accumulate ? vld1q_s32(target) : vdupq_n_s32(0);
          const int32x4_t all = vaddq_s32(before, vdupq_n_s32(given.inputs));
          vst1q_s32(target, vsubq_s32(all, vreinterpretq_s32_u32(vshlq_n_u32(count, 1))));
        }
      }
    }
  }

  // Values enter the products less 128, as the instructions take bytes of like sign:
  // u w = (u - 128) w + 128 w, and the sum of the second term is the same for every row.
  static void correct(const std::int8_t* panel, std::size_t quads, const std::int32_t* initial,
                      std::int32_t multiplier, std::int32_t* corrected) {
    typename Product::Sum sums[Product::vectors] = {};
    for (std::size_t quad = 0; quad < quads; ++quad) {
      for (std::size_t part = 0; part < Product::vectors; ++part) {
        Product::add(sums[part], vdupq_n_s8(1), vld1q_s8(panel + quad * 4 * lanes + 16 * part));
      }
    }
    for (std::size_t part = 0; part < Product::vectors; ++part) {
      const int32x4_t correction = vshlq_n_s32(Product::total(sums[part]), 7);
      vst1q_s32(corrected + 4 * part,
                vmlaq_s32(vld1q_s32(initial + 4 * part), correction, vdupq_n_s32(multiplier)));
    }
  }

  template <int Rows>
  static void dot_rows(const ByteRows& rows, const std::int8_t* panel, std::size_t quads,
                       const Epilogue& epilogue, std::int32_t* out) {
    typename Product::Sum sums[Rows][Product::vectors] = {};
    const uint8x16_t middle = vdupq_n_u8(128);
    const std::uint8_t* data = rows.data;
    const std::size_t stride = rows.row_stride;
    for (std::size_t quad = 0; quad < quads; ++quad, data += rows.quad_stride) {
      int8x16_t values[Rows];
      for (int row = 0; row < Rows; ++row) {
        std::uint32_t bytes;
        std::memcpy(&bytes, data + static_cast<std::size_t>(row) * stride, 4);
        values[row] =
            vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_u32(vdupq_n_u32(bytes)), middle));
      }
      for (std::size_t part = 0; part < Product::vectors; ++part) {
        const int8x16_t weights = vld1q_s8(panel + quad * 4 * lanes + 16 * part);
        for (int row = 0; row < Rows; ++row) {
          Product::add(sums[row][part], values[row], weights);
        }
      }
    }
    const int32x4_t multiplier = vdupq_n_s32(epilogue.multiplier);
    for (int row = 0; row < Rows; ++row) {
      for (std::size_t part = 0; part < Product::vectors; ++part) {
        std::int32_t* target = out + static_cast<std::size_t>(row) * epilogue.stride + 4 * part;
        int32x4_t result = vmlaq_s32(vld1q_s32(epilogue.initial + 4 * part),
                                     Product::total(sums[row][part]), multiplier);
        if (epilogue.accumulate) {
          result = vaddq_s32(result, vld1q_s32(target));
        }
        vst1q_s32(target, result);
      }
    }
  }

  template <ByteForm form>
  static int8x16_t formed(int8x16_t bytes) {
    if constexpr (form == ByteForm::signs) {
      return vorrq_s8(vshrq_n_s8(bytes, 7), vdupq_n_s8(1));
    } else if constexpr (form == ByteForm::centred) {
      return veorq_s8(bytes, vdupq_n_s8(-128));
    } else {
      return bytes;
    }
  }

  // Four quads of four rows.
  template <ByteForm form>
  static void transpose_four(const std::int8_t* rows, std::size_t stride, std::int8_t* out) {
    uint32x4_t row[4];
    for (std::size_t i = 0; i < 4; ++i) {
      row[i] = vreinterpretq_u32_s8(formed<form>(vld1q_s8(rows + i * stride)));
    }
    const uint32x4_t even01 = vtrn1q_u32(row[0], row[1]);
    const uint32x4_t odd01 = vtrn2q_u32(row[0], row[1]);
    const uint32x4_t even23 = vtrn1q_u32(row[2], row[3]);
    const uint32x4_t odd23 = vtrn2q_u32(row[2], row[3]);
    vst1q_s8(out, low_halves(even01, even23));
    vst1q_s8(out + 4 * lanes, low_halves(odd01, odd23));
    vst1q_s8(out + 8 * lanes, high_halves(even01, even23));
    vst1q_s8(out + 12 * lanes, high_halves(odd01, odd23));
  }

  static int8x16_t low_halves(uint32x4_t a, uint32x4_t b) {
    return vreinterpretq_s8_u64(vtrn1q_u64(vreinterpretq_u64_u32(a), vreinterpretq_u64_u32(b)));
  }
  static int8x16_t high_halves(uint32x4_t a, uint32x4_t b) {
    return vreinterpretq_s8_u64(vtrn2q_u64(vreinterpretq_u64_u32(a), vreinterpretq_u64_u32(b)));
  }

  // random_bits of four counters from `index`; in memory order its bytes are the draws.
  static uint32x4_t four_draws(Key key, std::uint32_t index) {
    static constexpr std::uint32_t offsets[4] = {0, 1, 2, 3};
    const uint32x4_t counter = vaddq_u32(vdupq_n_u32(index), vld1q_u32(offsets));
    uint32x4_t x = vmlaq_u32(vdupq_n_u32(key.low), counter, vdupq_n_u32(0x9E3779B9U));
    x = veorq_u32(x, vshrq_n_u32(x, 16));
    x = vmulq_u32(x, vdupq_n_u32(0x7FEB352DU));
    x = veorq_u32(x, vshrq_n_u32(x, 15));
    x = vmulq_u32(vaddq_u32(x, vdupq_n_u32(key.high)), vdupq_n_u32(0x846CA68BU));
    return veorq_u32(x, vshrq_n_u32(x, 16));
  }

  // Eight latents after the step, of a size in 1/256 of a level.
  static int8x8_t moved(int8x8_t latents, const std::int32_t* gradient, uint16x8_t fine) {
    const int16x8_t size = vreinterpretq_s16_u16(vshrq_n_u16(fine, 8));
    // Saturation keeps the sign, which is all that counts.
    const int16x8_t narrow =
        vcombine_s16(vqmovn_s32(vld1q_s32(gradient)), vqmovn_s32(vld1q_s32(gradient + 4)));
    const int16x8_t sign = vsubq_s16(vreinterpretq_s16_u16(vcltzq_s16(narrow)),
                                     vreinterpretq_s16_u16(vcgtzq_s16(narrow)));
    return vqmovn_s16(vmlsq_s16(vmovl_s8(latents), size, sign));
  }
};

// Any ARMv8 processor: products of bytes in 16 bits, then added in pairs.
struct WidenedProduct {
  struct Sum {
    int32x4_t low;
    int32x4_t high;
  };
  // Vectors of weights at a time: with four rows, their sums fill half of the registers.
  static constexpr std::size_t vectors = 2;

  static void add(Sum& sum, int8x16_t values, int8x16_t weights) {
    sum.low = vpadalq_s16(sum.low, vmull_s8(vget_low_s8(values), vget_low_s8(weights)));
    sum.high = vpadalq_s16(sum.high, vmull_high_s8(values, weights));
  }
  static int32x4_t total(const Sum& sum) { return vpaddq_s32(sum.low, sum.high); }
};

struct Neon : NeonKernels<WidenedProduct> {
  static constexpr const char* name = "neon";
  static constexpr bool has_lookup = false;
};

}  // namespace edgetrain

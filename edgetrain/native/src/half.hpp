// Half floats as their bits, rounded to the nearest, ties to even, in integer arithmetic: what a
// processor has of its own for them differs.
#pragma once

#include <cstdint>
#include <cstring>

namespace edgetrain {

inline bool is_negative(std::uint16_t half) { return (half >> 15) != 0; }

inline float from_half(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16;
  const std::uint32_t exponent = (half >> 10) & 31U;
  const std::uint32_t mantissa = half & 0x3FFU;
  std::uint32_t bits = sign | (exponent + 112U) << 23 | mantissa << 13;
  if (exponent == 31) {
    bits = sign | 0x7F800000U | mantissa << 13;
  } else if (exponent == 0) {
    // Below the smallest normal one a half float counts units of 2^-24.
    const float units = static_cast<float>(mantissa) * 0x1p-24F;
    std::memcpy(&bits, &units, sizeof bits);
    bits |= sign;
  }
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline std::uint16_t to_half(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const std::uint32_t sign = (bits >> 16) & 0x8000U;
  bits &= 0x7FFFFFFFU;
  std::uint32_t half;
  if (bits > 0x7F800000U) {
    half = 0x7E00U;
  } else if (bits >= 0x477FF000U) {
    half = 0x7C00U;
  } else if (bits >= 0x38800000U) {
    half = ((bits + 0xFFFU + ((bits >> 13) & 1U)) >> 13) - (112U << 10);
  } else {
    // A float from 1/2 to 1 counts units of 2^-24 too: the sum is rounded as the half must be.
    float magnitude;
    std::memcpy(&magnitude, &bits, sizeof magnitude);
    magnitude += 0.5F;
    std::memcpy(&half, &magnitude, sizeof half);
    half -= 0x3F000000U;
  }
  return static_cast<std::uint16_t>(sign | half);
}

}  // namespace edgetrain

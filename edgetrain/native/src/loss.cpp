#include "edgetrain/loss.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "edgetrain/kernels.hpp"

namespace edgetrain {

namespace {

// exp(x) for x <= 0 within two units in the last place: x = n ln 2 + r, a polynomial in r.
float exponential(float x) {
  constexpr float log2_e = 1.44269504F;
  constexpr float ln2_high = 0.693359375F;
  constexpr float ln2_low = -2.12194440e-4F;
  x = std::max(x, -87.0F);
  const float n = std::nearbyint(x * log2_e);
  float r = x - n * ln2_high;
  r = r - n * ln2_low;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  const float square = r * r;
  p = p * square + r;
  p = p + 1.0F;
  const auto exponent = static_cast<std::uint32_t>(static_cast<std::int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &exponent, sizeof power);
  return p * power;
}

}  // namespace

LossResult softmax_cross_entropy(const float* logits, const std::uint8_t* labels, std::size_t count,
                                 std::size_t classes, std::int32_t* gradient, std::size_t rows) {
  LossResult result;
  for (std::size_t row = 0; row < count; ++row) {
    const float* x = logits + row * classes;
    const float* largest = std::max_element(x, x + classes);
    // In a hostile plan another tensor may lie over the labels, which were checked before.
    const std::size_t label = std::min<std::size_t>(labels[row], classes - 1);
    // The exponentials wait where the gradient will stand.
    const auto slot = [&](std::size_t k) {
      return gradient + (k / lanes * rows + row) * lanes + k % lanes;
    };
    float sum = 0.0F;
    for (std::size_t k = 0; k < classes; ++k) {
      const float power = exponential(x[k] - *largest);
      std::memcpy(slot(k), &power, sizeof power);
      sum = sum + power;
    }
    for (std::size_t k = 0; k < classes; ++k) {
      float power;
      std::memcpy(&power, slot(k), sizeof power);
      const float error = power / sum - (k == label ? 1.0F : 0.0F);
      *slot(k) =
          static_cast<std::int32_t>(std::nearbyint(error * static_cast<float>(gradient_units)));
    }
    for (std::size_t k = classes; k < padded(classes); ++k) {
      *slot(k) = 0;
    }
    result.loss_sum +=
        std::log(static_cast<double>(sum)) - static_cast<double>(x[label] - *largest);
    result.correct += static_cast<std::size_t>(largest - x) == label ? 1 : 0;
  }
  return result;
}

}  // namespace edgetrain

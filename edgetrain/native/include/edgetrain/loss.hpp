// Softmax cross-entropy with an exponential of our own, so that no mathematics library decides
// bits.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgetrain {

struct LossResult {
  double loss_sum = 0.0;
  std::size_t correct = 0;
};

// The gradient of a logit is an integer times this, over the number of examples.
constexpr std::int32_t gradient_units = 1 << 20;

// gradient[tile][rows][32] = round((softmax - one-hot) * 2^20), a tile 32 classes; zero past the
// last class.
LossResult softmax_cross_entropy(const float* logits, const std::uint8_t* labels, std::size_t count,
                                 std::size_t classes, std::int32_t* gradient, std::size_t rows);

}  // namespace edgetrain

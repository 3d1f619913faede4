#include "edgetrain/channel_state.hpp"

#include <cmath>
#include <limits>

namespace edgetrain {

namespace {

constexpr double decay1 = 0.9;
constexpr double decay2 = 0.999;
constexpr double floor_of_root = 1e-8;

std::int32_t to_threshold(double value) {
  constexpr double least = std::numeric_limits<std::int32_t>::min();
  constexpr double most = std::numeric_limits<std::int32_t>::max();
  // A value that is not a number lets everything through, as it compares false.
  if (!(value > least)) {
    return std::numeric_limits<std::int32_t>::min();
  }
  return value < most ? static_cast<std::int32_t>(value) : std::numeric_limits<std::int32_t>::max();
}

}  // namespace

void set_levels(TileSums& sums, std::size_t rows) {
  const auto count = static_cast<std::int64_t>(rows);
  for (std::size_t lane = 0; lane < lanes; ++lane) {
    const std::int64_t quotient = sums.sum[lane] / count;
    const bool exact_or_negative = sums.sum[lane] % count <= 0;
    sums.level[lane] = static_cast<std::int32_t>(quotient + (exact_or_negative ? 0 : 1));
  }
}

std::int64_t deviation_of(const TileSums& sums, std::size_t lane, std::size_t rows) {
  const auto count = static_cast<std::int64_t>(rows);
  return 2 * (count * sums.above[lane] - sums.number[lane] * sums.sum[lane]);
}

ChannelStatistics statistics_of(std::int64_t sum, std::int64_t deviation, std::size_t count) {
  const auto examples = static_cast<double>(count);
  return {static_cast<double>(sum) / examples,
          static_cast<double>(deviation) / (examples * examples)};
}

ChannelThresholds thresholds_of(const ChannelStatistics& statistics, float shift) {
  const double mean = statistics.mean;
  const double deviation = statistics.deviation;
  const double offset = static_cast<double>(shift);
  return {to_threshold(std::ceil(mean - offset * deviation)),
          to_threshold(std::ceil(mean - (1.0 + offset) * deviation)),
          to_threshold(std::floor(mean + (1.0 - offset) * deviation))};
}

float inverse_of(double deviation) {
  return deviation > 0.0 ? static_cast<float>(1.0 / deviation) : 0.0F;
}

float blend(float running, double batch, double momentum) {
  return static_cast<float>((1.0 - momentum) * static_cast<double>(running) + momentum * batch);
}

ChannelLine line_of(std::int64_t sum, std::int64_t signed_sum, float scale, float inverse,
                    std::size_t count) {
  const double slope = static_cast<double>(scale) * static_cast<double>(inverse);
  const auto examples = static_cast<double>(count);
  return {static_cast<float>(slope),
          static_cast<float>(static_cast<double>(sum + signed_sum) * slope / examples),
          static_cast<float>(static_cast<double>(sum - signed_sum) * slope / examples)};
}

void step_shift(const ShiftState& state, std::size_t channel, double gradient,
                const ShiftStep& step) {
  float& moment1 = state.moment1[channel];
  float& moment2 = state.moment2[channel];
  moment1 = static_cast<float>(decay1 * static_cast<double>(moment1) + (1.0 - decay1) * gradient);
  moment2 = static_cast<float>(decay2 * static_cast<double>(moment2) +
                               (1.0 - decay2) * (gradient * gradient));
  const double direction = static_cast<double>(moment1) / step.correction1;
  const double root = std::sqrt(static_cast<double>(moment2) / step.correction2);
  float& shift = state.shift[channel];
  shift = static_cast<float>(static_cast<double>(shift) -
                             step.learning_rate * direction / (root + floor_of_root));
}

}  // namespace edgetrain
